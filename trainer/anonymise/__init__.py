"""Personal data taken out of texts, and people put under pseudonyms; docs/privacy.md says what is found and what not.

`Anonymiser` is what others use. Below it: `structured` (what has a form), `known` (the people of the log),
`names_found` (other names, by an installed model, the tagger, or rules), `overlaps`, and `replacing`.
"""

from trainer.anonymise.anonymiser import Anonymiser
from trainer.anonymise.spans import ENTITY_KINDS, Entity, EntityKind, replace_entities

__all__ = ["ENTITY_KINDS", "Anonymiser", "Entity", "EntityKind", "replace_entities"]
