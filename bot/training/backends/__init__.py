"""Backends that run trainings: on this machine, or on a Ray cluster."""
