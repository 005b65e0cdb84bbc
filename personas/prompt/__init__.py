"""Prompts: the renderer, chat templates and macros."""
