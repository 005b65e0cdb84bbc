"""The findings of a suite."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Outcome:
    """The findings of a suite; `faults` counts what was done, by kind or place.

    `owed` messages had to be answered, and were looked for; `exempt` ones may have been refused.
    """

    tried: int = 0
    owed: int = 0
    exempt: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    def __iadd__(self, other: Outcome) -> Outcome:
        self.tried += other.tried
        self.owed += other.owed
        self.exempt += other.exempt
        self.lost += other.lost
        self.doubled += other.doubled
        self.orphans += other.orphans
        self.faults += other.faults
        return self

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.orphans)

    def __str__(self) -> str:
        counts = (
            f"{len(self.lost)} lost · {len(self.doubled)} doubled · {len(self.orphans)} orphans"
        )
        if self.owed or self.exempt:
            counts += f" · {self.owed} answers owed, {self.exempt} messages exempt"
        return "\n".join(
            [f"tried {self.tried} · {counts}", *self.lost[:9], *self.doubled[:9], *self.orphans[:9]]
        )
