"""The pages and the API of what is done at set times."""
