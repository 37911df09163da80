"""Checks of the conda environments that a profile names."""
