"""Data sources, uploads and data sets."""
