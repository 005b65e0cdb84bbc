"""Benchmarks, each run by a `make bench-…` target."""
