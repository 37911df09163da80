"""A real Kubernetes control plane for the lab: ``python -m harness.kubelab`` builds it."""
