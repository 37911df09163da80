"""Tests of the node side: engine, proxy, trust, seal."""
