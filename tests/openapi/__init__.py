"""Compares what goes between a bot and the sandbox with Discord's own description of its HTTP
API.
"""
