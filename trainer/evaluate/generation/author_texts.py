"""Texts of known authors, by which a persona's voice is told from others'."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from personas.card.toml_card import SHIPPED_CARDS, read_cards
from personas.home.data_subjects import NO_CONSENT
from personas.home.rights import decide_right, read_statement
from personas.schemas.chat import Persona
from personas.schemas.scorecard import GENERAL_VOICE, MEMBERS_VOICE
from personas.shipped_folders import SHIPPED_DATA
from trainer.dataset.dataset import Dataset
from trainer.dataset.dedup_split import hash_fraction
from trainer.dataset.written_replies import is_written
from trainer.schemas import PromptReply
from trainer.sources.conversation import Conversation
from trainer.sources.reader import read_usable
from trainer.sources.source_format import ReadOptions

HELDOUT_SHARE = 0.15  # share held out of texts that have no held-out set of their own
MIN_CLASS_TEXTS = 10  # a class with fewer is left out


@dataclass(frozen=True)
class AuthorTexts:
    """Texts of a known author: those for training, and the held-out ones."""

    trained: tuple[str, ...]
    heldout: tuple[str, ...]


def collect_voices(data: Dataset, others: Mapping[str, Dataset]) -> dict[str, AuthorTexts]:
    """Return the texts of the persona, then of other classes with enough texts; `others` default to
    shipped ones.
    """
    assert data.persona is not None  # general dialogue has no voice to measure
    voices = {name: _own_texts(other) for name, other in others.items()}
    if not voices:
        voices = shipped_voices(data.persona)
    voices[GENERAL_VOICE] = _split_texts([pair.reply for pair in data.general_prompt_replies])
    voices[MEMBERS_VOICE] = AuthorTexts(
        trained=tuple(pair.message for pair in data.train_prompt_replies if pair.by_persona),
        heldout=tuple(pair.message for pair in data.heldout_prompt_replies if pair.by_persona),
    )
    usable = {data.persona.id: _by_people(data)}
    for name, voice in voices.items():
        if len(voice.trained) >= MIN_CLASS_TEXTS and voice.heldout:
            usable[name] = voice
    return usable


def usable_voices(data: Dataset, others: Mapping[str, Dataset]) -> dict[str, AuthorTexts]:
    """Return `collect_voices`; empty if those that people wrote are too few to tell the persona from
    anybody else.
    """
    if data.persona is None:
        return {}
    voices = collect_voices(data, others)
    own = voices[data.persona.id]
    if len(own.trained) < MIN_CLASS_TEXTS or not own.heldout:
        return {}
    return voices if other_voices(data.persona, voices) else {}


def other_voices(persona: Persona, voices: Mapping[str, AuthorTexts]) -> list[AuthorTexts]:
    """Return the texts of authors that are neither the persona nor the members it talks to."""
    known = (persona.id, MEMBERS_VOICE)
    return [voice for name, voice in voices.items() if name not in known]


def shipped_voices(persona: Persona) -> dict[str, AuthorTexts]:
    """Return the replies of the shipped personas except this one."""
    cards = read_cards(SHIPPED_CARDS)
    voices = {}
    for name, card in cards.items():
        log = SHIPPED_DATA / "logs" / f"{name}.json"
        if name != persona.id and log.is_file():
            voices[name] = _split_texts(_persona_texts(log, card))
    return voices


def _own_texts(data: Dataset) -> AuthorTexts:
    """Return the replies of a data set's persona."""

    def replies(pairs: Iterable[PromptReply]) -> tuple[str, ...]:
        return tuple(pair.reply for pair in pairs if pair.by_persona)

    return AuthorTexts(replies(data.train_prompt_replies), replies(data.heldout_prompt_replies))


def _by_people(data: Dataset) -> AuthorTexts:
    """Return the replies of a data set's persona that no model wrote: by its own replies, a model
    would have any voice that it has.
    """
    return _own_texts(
        replace(
            data,
            train_prompt_replies=_not_written(data.train_prompt_replies),
            heldout_prompt_replies=_not_written(data.heldout_prompt_replies),
        )
    )


def _not_written(pairs: Iterable[PromptReply]) -> tuple[PromptReply, ...]:
    return tuple(pair for pair in pairs if not is_written(pair.talk))


def _split_texts(texts: Iterable[str]) -> AuthorTexts:
    trained: list[str] = []
    heldout: list[str] = []
    for text in dict.fromkeys(texts):
        if hash_fraction("voice apart", text) < HELDOUT_SHARE:
            heldout.append(text)
        else:
            trained.append(text)
    return AuthorTexts(tuple(trained), tuple(heldout))


def _persona_texts(log: Path, persona: Persona) -> list[str]:
    """Return a persona's replies in a log if training on it is permitted."""
    statement = read_statement(log)
    stated = statement.right if statement else ""
    decide_right(log.name, stated=stated, consent=NO_CONSENT).require()
    replies = []
    for talk in read_usable(log, ReadOptions(persona=persona)):
        if isinstance(talk, Conversation):
            replies += [message.text for message in talk.messages if message.speaker.is_persona]
    return replies
