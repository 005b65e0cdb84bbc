"""Shared core of bot and trainer: personas, prompts, base models, the engine, and the files of a
home.

Imports neither `bot` nor `trainer`.
"""
