"""Simulation of many vLLM servers under the bot's own scheduler, and its validation against real
ones.
"""
