"""What is kept about one member: told in words, and as a file."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.personas import short_id
from bot.privacy.files import where_they_are
from bot.privacy.forget import Forgetter, receipt_of
from bot.privacy.receipt import Receipt
from bot.privacy.texts import Language
from bot.privacy.words import said
from bot.store import CARD, Forgetting, Store
from personas.contracts import Persona
from personas.exports import exports_with

ACTS = ("jobs", "promotions", "rollouts", "channels", "mutes")


@dataclass(frozen=True)
class About:
    """One member, as this home knows them. `days` is how long conversations are kept."""

    forgetter: Forgetter
    user_id: int
    names: tuple[str, ...] = ()
    days: int = 90

    @property
    def store(self) -> Store:
        """Where most of it is."""
        return self.forgetter.store

    def trained(self) -> list[str]:
        """The data sets, job folders and adapters that list the member, by path from the home."""
        traces = self.forgetter.traces(self.user_id, self.names)
        return where_they_are(self.forgetter.home, self.forgetter.people(traces))

    def forgettings(self) -> list[Forgetting]:
        """When they were forgotten, latest first."""
        return self.store.forgettings.of(self.forgetter.keyed(str(self.user_id)))

    # ------------------------------------------------------------------------------------------ in words

    def words(self, language: Language, operator: str) -> str:
        """For the member, in plain words."""
        lines = [*self._kept_words(language), *self._training_words(language)]
        nothing = [] if lines else [said(language, "show_nothing")]
        return "\n".join(
            [
                said(language, "show_title"),
                *nothing,
                *lines,
                self._consent_words(language),
                *self._forgotten_words(language, operator),
                said(language, "show_end", operator=operator),
            ]
        )

    def trained_words(self, language: Language) -> str:
        """What was trained with the member in it; empty when nothing was."""
        return ", ".join(dict.fromkeys(_shown(path, language) for path in self.trained()))

    def _kept_words(self, language: Language) -> list[str]:
        counts, lines = self.store.erasure.counts(self.user_id), []
        since = self.store.erasure.since(self.user_id)
        if since is not None:
            values = {"count": counts["messages"], "since": int(since), "days": self.days}
            lines.append(said(language, "show_messages", **values))
        if counts["votes"]:
            lines.append(said(language, "show_votes", count=counts["votes"]))
        given = [
            said(
                language,
                "card" if gift.what == CARD else "lore",
                what=gift.what,
                persona=short_id(Persona(gift.persona_id, gift.persona_id), gift.guild_id),
            )
            for gift in self.store.people.gifts_of(self.user_id)
        ]
        if given:
            lines.append(said(language, "show_given", what=", ".join(given)))
        if counts["taught"]:
            lines.append(said(language, "show_taught", count=counts["taught"]))
        if counts["comparisons"]:
            lines.append(said(language, "show_comparisons", count=counts["comparisons"]))
        acts = [said(language, act, count=counts[act]) for act in ACTS if counts[act]]
        return [*lines, said(language, "show_acts", what=", ".join(acts))] if acts else lines

    def _training_words(self, language: Language) -> list[str]:
        what = self.trained_words(language)
        return [said(language, "show_in", what=what)] if what else []

    def _consent_words(self, language: Language) -> str:
        decision = self.store.people.decision(self.user_id)
        if decision and decision.opted_in:
            return said(language, "show_consent_in", at=int(decision.at))
        return said(language, "show_consent_out")

    def _forgotten_words(self, language: Language, operator: str) -> list[str]:
        before = [one for one in self.forgettings() if receipt_of(one).scope == "everything"]
        if not before:
            return []
        if before[0].step not in ("", "follow"):
            return [said(language, "show_forgetting")]
        done = receipt_words(receipt_of(before[0]), language, operator).splitlines()[1:]
        return [said(language, "show_forgotten", at=int(before[0].asked_at), what=" ".join(done).replace("• ", ""))]

    # ------------------------------------------------------------------------------------------ as a file

    def export(self) -> bytes:
        """All of it as JSON, in UTF-8."""
        traces = self.forgetter.traces(self.user_id, self.names)
        people = self.forgetter.people(traces)
        whole: dict[str, Any] = {
            "format": 1,
            "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.forgetter.now())),
            "user_id": str(self.user_id),
            "names": list(traces.speaker_names),
            **self.store.erasure.rows_of(self.user_id),
            "lore_and_cards": self._given_files(),
            "in_training_material_of": where_they_are(self.forgetter.home, people),
            "in_files_that_left": [
                {"at": one.at, "what": one.what} for one in exports_with(self.forgetter.home, people)
            ],
            "forgotten_before": [one.asked_at for one in self.forgettings()],
        }
        return json.dumps(whole, ensure_ascii=False, indent=1).encode()

    def _given_files(self) -> list[dict[str, str]]:
        """The text of the lore that the member gave."""
        found = []
        for gift in self.store.people.gifts_of(self.user_id):
            file = self.forgetter.home / "lore" / str(gift.guild_id) / gift.persona_id / gift.what
            if gift.what != CARD and file.is_file():
                found.append({"persona": gift.persona_id, "file": gift.what, "text": file.read_text(encoding="utf-8")})
        return found


def receipt_words(receipt: Receipt, language: Language, operator: str) -> str:
    """What a forgetting did, for the member."""
    rows = {name: receipt.rows.get(name, 0) for name in ("messages", "replies", "votes", "mentions")}
    everything = receipt.scope == "everything"
    lines = [said(language, "receipt_title" if everything else "receipt_trainings")]
    if everything:
        lines.append(said(language, "receipt_rows", **rows))
    deleted = len(receipt.deleted) + len(receipt.lost)
    lines.append(said(language, "receipt_files", deleted=deleted, cut=len(receipt.cut)))
    withdrawn = [said(language, "adapter", name=one.persona_id, version=one.version) for one in receipt.withdrawn]
    withdrawn += [said(language, "dialogue", name=one.persona_id) for one in receipt.dialogues]
    if withdrawn:
        lines.append(said(language, "receipt_withdrawn", what=", ".join(withdrawn)))
    if receipt.exports:
        lines.append(said(language, "receipt_exports", count=len(receipt.exports), operator=operator))
    if receipt.resumed:
        lines.append(said(language, "receipt_resumed"))
    return "\n".join(lines)


def _shown(path: str, language: Language) -> str:
    """A folder of the home as a member may see it: nothing of the machine, nothing of other servers."""
    parts = Path(path).parts
    if parts[:2] == ("models", "persona_adapters") and len(parts) > 3:
        return said(language, "adapter", name=parts[2], version=parts[3])
    if parts[:2] == ("models", "dialogue"):
        return said(language, "dialogue", name=parts[2])
    if parts[0] == "jobs" and len(parts) > 1:
        return said(language, "job", name=parts[1])
    return said(language, "dataset")
