"""Proxy settings, dialect by dialect, as the programs of the node read them."""
