"""A cluster whose nodes have GPUs: the operator, its device plugin, and how cards are shared."""
