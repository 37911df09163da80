"""The deferred configuration, read back by the programs that depend on it."""
