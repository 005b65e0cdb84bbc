"""Pages of score cards and blind comparisons."""
