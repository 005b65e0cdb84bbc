"""The small tagger: people's names and street addresses in text in Latin letters, by a linear-chain CRF.

`load()` reads model.crf.xz, which `python -m trainer.anonymise.tagger.train` makes from texts that it generates.
"""

from trainer.anonymise.tagger.model import KINDS, Tagger, TaggerError, load

__all__ = ["KINDS", "Tagger", "TaggerError", "load"]
