"""What makes nodes: ``base`` has the interface, ``registry`` loads providers by name."""
