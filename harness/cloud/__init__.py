"""Google Cloud around the nodes: the closed network, its proxy, images, and what may be asked."""
