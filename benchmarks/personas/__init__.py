"""Benchmark of training methods on nine personas, without a judge model."""
