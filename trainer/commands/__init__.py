"""The command line: one file for each command of `python -m trainer`, and what they share."""
