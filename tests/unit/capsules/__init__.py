"""Capsules: what is in them, what never is, and what can be made of them."""
