"""What one look at a node reads: one small module an area, each with a ``collect(reader)``."""
