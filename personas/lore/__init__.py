"""Markdown lore: split into passages, indexed by words and embeddings, retrieved with its source.

The index is a cache: one file that can be deleted at any time and is rebuilt from the markdown.
"""
