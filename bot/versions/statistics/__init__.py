"""Statistics of comparisons, without Discord or the database."""
