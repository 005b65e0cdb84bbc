"""One module per input format; list a new one in `trainer.sources.registry`."""
