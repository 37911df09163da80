"""GPU nodes on Kubernetes: the operator's chart, and the cluster that it goes to."""
