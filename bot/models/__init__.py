"""The base models that people run: which fits here, fetching one, and serving another."""
