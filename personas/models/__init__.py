"""Base models: find, fetch, quantise, load."""
