"""Tests of GPU nodes on Kubernetes."""
