"""Exports of adapters for other programs. Each export is loaded back and compared, or discarded."""
