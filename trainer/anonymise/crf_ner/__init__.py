"""The small tagger: people's names and street addresses in text in Latin letters, by a linear-chain CRF.

`load()` reads model.crf.xz, which `python -m tools.name_tagger.train` makes from texts that it generates.
"""

from trainer.anonymise.crf_ner.crf_tagger import LABEL_KINDS, CrfTagger, TaggerError, load_tagger

__all__ = ["LABEL_KINDS", "CrfTagger", "TaggerError", "load_tagger"]
