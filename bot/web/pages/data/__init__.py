"""Pages of data sources, data sets and plans."""
