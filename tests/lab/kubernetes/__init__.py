"""A node of a cluster, booted."""
