"""What a forgetting did: counts, and files by path, with nobody's name in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from personas.contracts import Contract
from personas.exports import Export

Scope = Literal["everything", "trainings", "files"]


class Withdrawn(Contract):
    """A version that is served no more. `now` is what speaks instead; `again` is the job that trains it anew.

    `now` is None where it was not live, "" for the base model; `why_not` says why there is no such job.
    """

    persona_id: str
    version: str
    now: str | None = None
    again: str | None = None
    why_not: str = ""


class Receipt(Contract):
    """`rows` counts what left the store; `deleted`, `cut` and `lost` are paths from the home (`bot.privacy.files`).

    What was said after `until` (seconds since 1970) was left alone. `resumed`: the bot ended in the middle of it, so
    what the step did that it ended in may be missing here, though not undone.
    """

    scope: Scope = "everything"
    until: float = 0.0
    resumed: bool = False
    rows: dict[str, int] = Field(default={})
    deleted: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    withdrawn: tuple[Withdrawn, ...] = ()
    dialogues: tuple[Withdrawn, ...] = ()
    """Adapters of dialogue jobs, which are not served: `persona_id` is the job's name."""
    set_aside: tuple[str, ...] = ()
    """Jobs that begin anew, without the person."""
    exports: tuple[Export, ...] = ()

    def also(self, rows: Mapping[str, int]) -> Receipt:
        """The receipt with further rows counted; a step that is repeated finds fewer, so nothing counts twice."""
        every = {name: self.rows.get(name, 0) + rows.get(name, 0) for name in {*self.rows, *rows}}
        return self.model_copy(update={"rows": {name: count for name, count in sorted(every.items()) if count}})
