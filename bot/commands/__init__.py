"""Commands of `python -m bot` that belong to no package of their own."""
