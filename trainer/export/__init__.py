"""Adapters for other programs: `python -m trainer export`. Each export is loaded back and compared, or not kept."""
