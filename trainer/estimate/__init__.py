"""Estimates memory and time of a run."""
