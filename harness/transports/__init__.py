"""The ways to a node: virtio-serial, a local process, SSH. One interface for all of them."""
