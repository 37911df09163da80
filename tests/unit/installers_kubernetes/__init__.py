"""What a node is to a cluster: preflight, preparation, the C library."""
