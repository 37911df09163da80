"""The control side of the cache: looking at stores, filling them, cleaning them up."""
