"""Registers the harness's pytest plugin, and does nothing else."""

pytest_plugins = ["harness.plugin"]
