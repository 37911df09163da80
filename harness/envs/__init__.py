"""Solving and building conda environments on the control side."""
