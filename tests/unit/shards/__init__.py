"""Shards: who has what, the files of engines, and runs that are merged."""
