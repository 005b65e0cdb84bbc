"""Measures a version for its score card."""
