"""Pages of the documentation that are made of the code; hooks.py is where the builder begins."""
