"""Anonymisation: removes personal data from texts and replaces people by pseudonyms (docs/privacy.md).

`Anonymiser` is the entry point. It combines pattern recognisers (`secrets`, `id_numbers`, `phone_numbers`, `addresses`,
`network_identifiers`), the names of the log's people (`name_matcher`), other names found by an installed model, the CRF
tagger or rules (`name_detector`), overlap resolution (`spans`) and replacements (`surrogates`).
"""

from trainer.anonymise.anonymiser import Anonymiser
from trainer.anonymise.spans import ENTITY_KINDS, Entity, EntityKind, replace_entities

__all__ = ["ENTITY_KINDS", "Anonymiser", "Entity", "EntityKind", "replace_entities"]
