"""The HTTP API of trainings."""
