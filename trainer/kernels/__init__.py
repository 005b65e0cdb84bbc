"""What computes a training step: chosen for a model on a machine (`choice`), with extras where they are installed."""
