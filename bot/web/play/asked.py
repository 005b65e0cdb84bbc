"""What the playground is asked for, by a form or as JSON: whom, what, and how to draw."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import urlencode

from multidict import MultiMapping
from pydantic import Field

from bot.duet import FEWEST, MOST, USUAL
from personas.contract import Contract
from personas.contracts import Sampling

MOST_COLUMNS, MOST_ALTERNATIVES, MOST_NEW_TOKENS = 4, 10, 1024
LONGEST_PROMPT = 8000
LARGEST_SEED = 2**31 - 1

Name = Annotated[str, Field(min_length=1, max_length=256, description="a persona's id, or ID@VERSION, ID@base, base")]
Prompt = Annotated[
    str,
    Field(min_length=1, max_length=LONGEST_PROMPT, pattern=r"\S",
          description=f"words, at most {LONGEST_PROMPT} characters"),
]  # fmt: skip


class How(Contract):
    """How the replies are drawn. What is left out is as the bot answers members; without a seed one is drawn."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=10_000)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=MOST_NEW_TOKENS)] | None = None
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] | None = None
    alternatives: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES, description="tokens told at each place")] = 0

    def sampling(self, usual: Sampling) -> Sampling:
        """The same as the engine takes it."""
        given = {name: value for name, value in self.settings().items() if name != "alternatives"}
        return replace(usual, **{"seed": secrets.randbits(31), **given}, alternatives=self.alternatives or None)

    def settings(self) -> dict[str, Any]:
        """What was set, by name."""
        known = self.model_dump(include=set(How.model_fields), exclude_none=True)
        return {name: value for name, value in known.items() if name != "alternatives" or value}


class PlayBody(How):
    """The body of `POST /play/runs`: several answer one prompt, side by side.

    `after` names an earlier run whose talk goes on, with the same speakers: then `models` is left out.
    """

    models: Annotated[tuple[Name, ...], Field(max_length=MOST_COLUMNS)] = ()
    prompt: Prompt
    after: Annotated[str, Field(max_length=64)] | None = None


class DuetBody(How):
    """The body of `POST /play/duets`: two talk with each other after an opening that is said to both."""

    models: Annotated[tuple[Name, ...], Field(min_length=2, max_length=2)]
    opening: Prompt
    turns: Annotated[int, Field(ge=FEWEST, le=MOST)] = USUAL


def form_body(form: MultiMapping[Any], text: str) -> dict[str, Any]:
    """A form as such a body; fields that were left empty are left out. `text` names the field with the words."""
    fields = (*How.model_fields, "after", "turns")
    body: dict[str, Any] = {name: str(form[name]).strip() for name in fields if str(form.get(name, "")).strip()}
    body["models"] = [str(one).strip() for one in form.getall("with", []) if str(one).strip()]
    return {**body, text: str(form.get(text, "")).replace("\r\n", "\n").strip()}


def permalink(path: str, models: Iterable[str], settings: dict[str, Any]) -> str:
    """An address that opens the form with these speakers and settings. What is said is not in it: addresses are kept
    by browsers and shown to others.
    """
    return f"{path}?{urlencode([*(('with', model) for model in models), *settings.items()])}"
