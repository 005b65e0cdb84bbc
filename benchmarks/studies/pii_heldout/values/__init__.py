"""Names, places, numbers and words that the templates are filled with."""
