"""GPUs in containers: the toolkit, CDI, and the runtimes' settings."""
