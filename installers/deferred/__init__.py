"""YARN and Spark for the GPUs of this node, configured where the node is, never in its image."""
