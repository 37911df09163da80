"""Trust stores: the proxy's CA is there by fingerprint, and TLS depends on it."""
