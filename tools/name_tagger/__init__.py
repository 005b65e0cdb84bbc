"""Trains the name tagger: generated texts in, model.crf.xz out."""
