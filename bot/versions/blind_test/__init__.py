"""Blind tests: members compare two versions without knowing which is which (docs/judging.md)."""
