"""Where signing keys are: a file, Secret Manager, a PKCS#11 token, another machine."""
