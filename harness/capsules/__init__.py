"""Capsules: what a capture took from a node, in one file, and what can be made of it."""
