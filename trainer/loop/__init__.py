"""The training loop: TRL drives; batches, loss, checkpoints and what is told are ours."""
