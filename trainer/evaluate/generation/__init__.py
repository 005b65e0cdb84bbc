"""Generates replies of all candidates and measures voice, facts, texts and safety."""
