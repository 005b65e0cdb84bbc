"""Dialogues between two personas."""
