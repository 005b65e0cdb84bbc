"""The commands of `python -m bot` and `model_inference`."""
