"""CRF tagger: a linear-chain CRF that finds people and street addresses in Latin script.

`load_tagger()` reads model.crf.xz, which `python -m tools.name_tagger.train` trains on generated texts.
"""

from trainer.anonymise.crf_ner.crf_tagger import LABEL_KINDS, CrfTagger, TaggerError, load_tagger

__all__ = ["LABEL_KINDS", "CrfTagger", "TaggerError", "load_tagger"]
