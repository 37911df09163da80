"""The cache: what a node was given from it is what somebody trusted has signed."""
