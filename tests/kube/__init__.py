"""Tests on a real Kubernetes control plane: ``make lab-kube`` runs them, and nothing else does."""
