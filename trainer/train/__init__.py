"""Trains an adapter: stages, data collation, checkpoints, callbacks."""
