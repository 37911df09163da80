"""The deferred configuration."""
