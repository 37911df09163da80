"""Node side: standard library only, Python >= 3.9. Packed into ``airlock-node.pyz``."""
