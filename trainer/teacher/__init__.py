"""A model that writes replies from a persona's card before the training: its prompt, and the judge of what
it writes.
"""
