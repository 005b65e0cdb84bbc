"""Reads chat logs, dialogue and instruction sets, cards and lore: one format per module of
`formats`.
"""
