"""The HTTP API of data sources, uploads and data sets."""
