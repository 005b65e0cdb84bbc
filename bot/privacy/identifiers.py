"""Identifiers of a person: ids, names, texts, and names of jobs."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Self

from bot.platform.person_names import MIN_NAME_CHARACTERS, is_distinctive, is_distinctive_part
from personas.card.toml_card import FIELD_ORDER

MIN_ID_DIGITS = 15
"""Minimum digits of a Discord id. Shorter numbers occur in every file, for instance as times in
seconds.
"""
RESERVED_NAMES = frozenset(FIELD_ORDER) | frozenset(
    """user assistant system human gpt bot model tool char them me you someone everyone here others owner removed
    account adapter adapters adapter_config adapter_model answers archive arrived assets attachments author author_id
    authorid avatar backup base_model body cache card cards catalogue catalogue.toml channel channels chat checkpoint
    checkpoints checksums clientid commands consent content contents conversations created_at data datasets
    data-package date description dialogue discord discord-api display_name dropped embeds events export exports
    exports.jsonl first_mes forget form format from general global_name guild guilds handle history id input instruction
    isbot isedited isPinned jobs json jsonl keys licensed log logs lore manifest manifest.json material mentions
    mes_example message messages meta models name nickname opted_in origin output own-writing package packages path
    people people.json people.key permission persona persona_adapters persona_id personas personality pictures reactions
    receipt recipe reference reply reply_to report reports request request.json review reviews reviews.json right rights
    rights.toml role roles sandbox.sqlite scenario scorecard sender sha256 source sources speaker speakers spec
    spec_version stamp stated_by stated_on stats stats.json system_prompt tags talk text thread timestamp title toml
    tombstones tombstones.json train train.jsonl trainer trainer.log type understudy understudy.sqlite username users
    value version versions votes why discriminator lore.sqlite eval.jsonl dropped.jsonl callEndedTimestamp
    timestampEdited inlineEmojis categoryId""".casefold().split()
)
"""Names of roles, fields and files in homes, logs and data sets, which are never redacted."""


@dataclass(frozen=True)
class PersonIdentifiers:
    """The identifiers of a person. `names` are searched everywhere, `speaker_names` only as a
    speaker's name.

    `parts` are first and last words of names: they are replaced by "someone", and decide nothing
    else.

    `answers` are the ids of replies to the person, `jobs` the names that they gave to jobs, as
    `old=new` (`bot.privacy.job_names`), `lore` the lore files that they contributed, by path from
    the home.
    """

    ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    speaker_names: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    lore: tuple[str, ...] = ()

    def as_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def of_json(cls, text: str) -> Self:
        """Parse `as_json`'s output; empty identifiers where it was erased."""
        return cls(**{key: tuple(values) for key, values in json.loads(text or "{}").items()})

    def with_names(self, names: Iterable[str], barred: Iterable[str]) -> Self:
        """Add names, except those that others use (`barred`)."""
        taken = {name.casefold() for name in barred} | RESERVED_NAMES
        speaker_names = list(self.speaker_names)
        for name in map(str.strip, names):
            if name and name.casefold() not in taken:
                speaker_names.append(name)
        unique = tuple(dict.fromkeys(speaker_names))
        distinctive = tuple(name for name in unique if name in self.names or is_distinctive(name))
        return replace(self, names=distinctive, speaker_names=unique)

    def with_parts(self, others_words: Iterable[str]) -> Self:
        """Add the parts of names, except words of names that others use."""
        taken = {word.casefold() for word in others_words} | RESERVED_NAMES
        parts: dict[str, None] = {}
        for name in self.speaker_names:
            words = name.split()
            if len(words) < 2:
                continue
            for word in (words[0], words[-1]):
                if word.casefold() not in taken and is_distinctive_part(word):
                    parts[word] = None
        return replace(self, parts=tuple(parts))

    def with_texts(self, texts: Iterable[str]) -> Self:
        return replace(self, texts=tuple(dict.fromkeys([*self.texts, *texts])))

    def with_confirmed_names(self, names: Iterable[str]) -> Self:
        """Add names that the operator confirmed: they are searched everywhere."""
        all_names = list(self.names)
        speaker_names = list(self.speaker_names)
        for name in map(str.strip, names):
            if len(name) < MIN_NAME_CHARACTERS or name.casefold() in RESERVED_NAMES:
                continue
            speaker_names.append(name)
            if not name.isdecimal():
                all_names.append(name)
        return replace(
            self,
            names=tuple(dict.fromkeys(all_names)),
            speaker_names=tuple(dict.fromkeys(speaker_names)),
        )
