"""What a run leaves for people: tables, curves, sheets, model card, manifest, tracking."""
