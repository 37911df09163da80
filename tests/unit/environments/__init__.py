"""Conda environments: from channels of our own in the real format."""
