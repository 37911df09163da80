"""Checks of the deferred configuration: YARN and Spark on the node itself."""
