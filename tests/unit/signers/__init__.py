"""The control side of signing."""
