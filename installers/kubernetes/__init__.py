"""What makes a machine a node that a cluster can use: preparation, preflight, user data."""
