"""Rollouts: metrics of a version on trial, its texts, and the version history of a persona."""
