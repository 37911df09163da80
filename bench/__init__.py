"""Measurements: always a ratio against a peer or a limit, both sides in the same run."""
