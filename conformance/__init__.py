"""The checks: they read ``node.facts`` and ``node.host``, and nothing else."""
