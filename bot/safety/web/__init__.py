"""The page of the safety protocol."""
