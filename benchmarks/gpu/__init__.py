"""Training and serving on a graphics card, beside TRL with peft and transformers' `generate`."""
