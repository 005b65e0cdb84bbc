"""The steps of an erasure, and the receipt of what they did."""

from collections import Counter
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from bot.store import ErasureRequest
from personas.home.external_files import ExportRecord
from personas.schemas.base import FrozenModel

ErasureScope = Literal["everything", "trainings", "files"]
# The identifiers are gathered before anything is deleted that leads to them, and removed from the
# request once nothing has to be found by them. No backup restores a person from "bury" on. Jobs
# stop before rows and files go that they would read.
ERASURE_STEPS: dict[ErasureScope, tuple[str, ...]] = {
    "everything": (
        "gather",
        "bury",
        "jobs",
        "store",
        "adapters",
        "files",
        "erase",
        "compact",
        "follow",
    ),
    "trainings": ("gather", "jobs", "adapters", "made", "erase", "compact", "follow"),
    "files": ("gather", "jobs", "adapters", "files", "erase", "compact", "follow"),
}
"""The steps by scope, in order: to erase a person, to withdraw what was trained on them, and to
erase again what a restored backup contains beside the store.
"""


class WithdrawnVersion(FrozenModel):
    """A withdrawn version. `now` is the version that replaces it; `again` is the job that retrains
    it.

    `now` is None where it was live in no guild, "" for the base model; `why_not` says why there is
    no such job.
    """

    persona_id: str
    version: str
    now: str | None = None
    again: str | None = None
    why_not: str = ""


class ErasureReceipt(FrozenModel):
    """The receipt of an erasure. `rows` counts deleted rows; `deleted`, `cut` and `lost` are paths
    in the home (`bot.privacy.home_files`).

    Messages after `until` (seconds since 1970) stay, and events after `last_event` are answered:
    its id has Discord's time, which the machine's clock may differ from. `resumed`: the bot stopped
    in the middle of a step, so what that step did may be missing here, though it was done.
    """

    scope: ErasureScope = "everything"
    until: float = 0.0
    last_event: int = 0
    resumed: bool = False
    rows: dict[str, int] = Field(default={})
    deleted: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    withdrawn: tuple[WithdrawnVersion, ...] = ()
    dialogues: tuple[WithdrawnVersion, ...] = ()
    """Adapters of dialogue jobs: `persona_id` is the job's name."""
    set_aside: tuple[str, ...] = ()  # jobs that start again, without the person
    exports: tuple[ExportRecord, ...] = ()

    def also(self, rows: Mapping[str, int]) -> "ErasureReceipt":
        """Return the receipt with further rows counted; a repeated step finds fewer, so nothing
        counts twice.
        """
        total = Counter(self.rows)
        total.update(rows)
        counts = {name: count for name, count in sorted(total.items()) if count}
        return self.model_copy(update={"rows": counts})


def receipt_of(erasure_request: ErasureRequest) -> ErasureReceipt:
    """Return the receipt of a request, as far as it has been carried out."""
    return ErasureReceipt.model_validate_json(erasure_request.receipt)
