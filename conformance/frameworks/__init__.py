"""Frameworks: each computes on every card what the CPU computes."""
