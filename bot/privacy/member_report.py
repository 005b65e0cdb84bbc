"""Reports what is stored about one member, as text and as a JSON export."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.privacy.erasure_receipt import ErasureReceipt, receipt_of
from bot.privacy.erasure_runner import ErasureRunner
from bot.privacy.home_files import paths_listing_person
from bot.privacy.texts import translate
from bot.store import CARD_CONTRIBUTION, ErasureRequest, Store
from personas.home.external_files import find_exports_containing
from personas.home.persona_ids import short_id
from personas.schemas.chat import Persona

RECEIPT_TABLES = ("messages", "replies", "votes", "memories", "mentions")
ACTION_TABLES = ("jobs", "promotions", "channels", "mutes")


@dataclass(frozen=True)
class MemberReport:
    """Everything stored about one member. `days` is how long conversations are kept."""

    runner: ErasureRunner
    user_id: int
    names: tuple[str, ...] = ()
    days: int = 90

    @property
    def store(self) -> Store:
        return self.runner.store

    def trained(self) -> list[str]:
        """The data sets, job folders and adapters that list the member, by path from the home."""
        traces = self.runner.traces(self.user_id, self.names)
        return paths_listing_person(self.runner.home, self.runner.people(traces))

    def erasures(self) -> list[ErasureRequest]:
        """Return the member's erasures, latest first."""
        return self.store.erasure_requests.of(self.runner.keyed(str(self.user_id)))

    def words(self, operator: str) -> str:
        """Return the report for the member, in plain words."""
        stored = self._stored_words()
        if trained := self.trained_words():
            stored.append(translate("show_in", what=trained))
        return "\n".join(
            [
                translate("show_title"),
                *(stored or [translate("show_nothing")]),
                self._consent_words(),
                *self._forgotten_words(operator),
                translate("show_end", operator=operator),
            ]
        )

    def trained_words(self) -> str:
        """Describe what was trained on the member's data; empty when nothing was."""
        return ", ".join(dict.fromkeys(_describe_path(path) for path in self.trained()))

    def _stored_words(self) -> list[str]:
        counts = self.store.erasure.counts(self.user_id)
        lines = []
        since = self.store.erasure.since(self.user_id)
        if since is not None:
            values = {"count": counts["messages"], "since": int(since), "days": self.days}
            lines.append(translate("show_messages", **values))
        if counts["votes"]:
            lines.append(translate("show_votes", count=counts["votes"]))
        contributions = []
        for gift in self.store.people.contributions_of(self.user_id):
            key = "card" if gift.what == CARD_CONTRIBUTION else "lore"
            persona = short_id(Persona(gift.persona_id, gift.persona_id), gift.guild_id)
            contributions.append(translate(key, what=gift.what, persona=persona))
        if contributions:
            lines.append(translate("show_given", what=", ".join(contributions)))
        for table in ("taught", "memories", "comparisons", "reports"):
            if counts[table]:
                lines.append(translate(f"show_{table}", count=counts[table]))
        acts = [translate(act, count=counts[act]) for act in ACTION_TABLES if counts[act]]
        if acts:
            lines.append(translate("show_acts", what=", ".join(acts)))
        return lines

    def _consent_words(self) -> str:
        decision = self.store.people.decision(self.user_id)
        if decision and decision.opted_in:
            return translate("show_consent_in", at=int(decision.at))
        return translate("show_consent_out")

    def _forgotten_words(self, operator: str) -> list[str]:
        """Describe the latest erasure of the member, if there was one."""
        for erasure in self.erasures():
            receipt = receipt_of(erasure)
            if receipt.scope != "everything":
                continue
            if erasure.step not in ("", "follow"):
                return [translate("show_forgetting")]
            effects = format_receipt(receipt, operator).splitlines()[1:]
            text = " ".join(effects).replace("• ", "")
            return [translate("show_forgotten", at=int(erasure.asked_at), what=text)]
        return []

    def collect(self) -> dict[str, Any]:
        """Return everything stored about the member, in the database and the home's files."""
        traces = self.runner.traces(self.user_id, self.names)
        people = self.runner.people(traces)
        return {
            "format": 1,
            "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.runner.now())),
            "user_id": str(self.user_id),
            "names": list(traces.speaker_names),
            **self.store.erasure.rows_of(self.user_id),
            "lore_and_cards": self._given_files(),
            "in_training_material_of": paths_listing_person(self.runner.home, people),
            "in_files_that_left": [
                {"at": export.at, "what": export.what}
                for export in find_exports_containing(self.runner.home, people)
            ],
            "forgotten_before": [erasure.asked_at for erasure in self.erasures()],
        }

    def export(self) -> bytes:
        """Return everything stored about the member as JSON."""
        return json.dumps(self.collect(), ensure_ascii=False, indent=1).encode()

    def _given_files(self) -> list[dict[str, str]]:
        files = []
        for gift in self.store.people.contributions_of(self.user_id):
            file = self.runner.home / "lore" / str(gift.guild_id) / gift.persona_id / gift.what
            if gift.what != CARD_CONTRIBUTION and file.is_file():
                files.append(
                    {
                        "persona": gift.persona_id,
                        "file": gift.what,
                        "text": file.read_text(encoding="utf-8"),
                    }
                )
        return files


def format_receipt(receipt: ErasureReceipt, operator: str) -> str:
    """Describe for the member what an erasure did."""
    if receipt.scope == "everything":
        counts = {name: receipt.rows.get(name, 0) for name in RECEIPT_TABLES}
        lines = [
            translate("receipt_title"),
            translate("receipt_rows", **counts),
        ]
    else:
        lines = [translate("receipt_trainings")]
    deleted = len(receipt.deleted) + len(receipt.lost)
    lines.append(translate("receipt_files", deleted=deleted, cut=len(receipt.cut)))
    withdrawn = [
        translate("adapter", name=version.persona_id, version=version.version)
        for version in receipt.withdrawn
    ]
    for dialogue in receipt.dialogues:
        withdrawn.append(translate("dialogue", name=dialogue.persona_id))
    if withdrawn:
        lines.append(translate("receipt_withdrawn", what=", ".join(withdrawn)))
    if receipt.exports:
        lines.append(translate("receipt_exports", count=len(receipt.exports), operator=operator))
    if receipt.resumed:
        lines.append(translate("receipt_resumed"))
    return "\n".join(lines)


def _describe_path(path: str) -> str:
    """Describe a folder of the home for a member, without anything about the machine or other
    guilds.
    """
    parts = Path(path).parts
    if parts[:2] == ("models", "persona_adapters") and len(parts) > 3:
        return translate("adapter", name=parts[2], version=parts[3])
    if parts[:2] == ("models", "dialogue"):
        return translate("dialogue", name=parts[2])
    if parts[0] == "jobs" and len(parts) > 1:
        return translate("job", name=parts[1])
    return translate("dataset")
