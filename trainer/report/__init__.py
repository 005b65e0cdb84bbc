"""Reports of a run: tables, curves, sheets, model card, manifest."""
