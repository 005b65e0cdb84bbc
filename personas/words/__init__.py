"""A persona's own words: exchanges that its author wrote, and the search for the one that fits a
message.
"""
