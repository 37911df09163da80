"""What left the node, as the proxy and the captured cards saw it."""
