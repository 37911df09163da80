"""Airlock as it is installed: outside of any checkout."""
