"""The page of when a persona answers in its channels."""
