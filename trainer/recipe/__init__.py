"""Recipes, and how one is resolved for a job, a machine and its data."""
