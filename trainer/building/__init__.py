"""Data sets from sources: filtered, without duplicates, split, mixed, written, and read again."""
