"""The data pipeline: clean, deduplicate, split, render, write, load."""
