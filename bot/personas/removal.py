"""Removes personas, brings them back within a day, and deletes for good what nobody brought back."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from bot.personas.guild_lore import GuildLore, lore_parts
from bot.personas.registry import PersonaRegistry
from bot.personas.revisions import RevisionHistory
from bot.platform.localisation import LocalisableText, gettext_lazy, join_texts, ngettext_lazy
from bot.platform.trash import require_entry
from bot.store import Store
from personas.card.spec_card import JsonObject
from personas.home.lore_sets import LoreSets
from personas.home.shared_personas import CARD_FILE
from personas.home.trash import KEPT_S, TrashEntry, delete_entry, list_entries
from personas.schemas.chat import Persona


@dataclass(frozen=True)
class PersonaBelongings:
    """What a persona has, and what is removed or replaced with it: the version that is live in its
    guild (empty: none), and numbers.
    """

    live: str
    versions: int
    channels: int
    memories: int
    lore_files: int
    trainings: int

    def text(self) -> LocalisableText:
        """List what there is of it."""
        counted = (
            (self.versions, ngettext_lazy("{count} version", "{count} versions", self.versions)),
            (self.channels, ngettext_lazy("{count} channel", "{count} channels", self.channels)),
            (
                self.memories,
                ngettext_lazy(
                    "{count} memory of members", "{count} memories of members", self.memories
                ),
            ),
            (
                self.lore_files,
                ngettext_lazy("{count} lore file", "{count} lore files", self.lore_files),
            ),
            (
                self.trainings,
                ngettext_lazy("{count} open training", "{count} open trainings", self.trainings),
            ),
        )
        texts = [text for count, text in counted if count]
        if self.live and self.versions:
            live = gettext_lazy("{versions} ({live} is live)", versions=texts[0], live=self.live)
            texts[0] = live
        return (
            join_texts(*texts, separator=", ")
            if texts
            else gettext_lazy("no versions, channels, memories or lore")
        )


@dataclass(frozen=True)
class BroughtBack:
    """A persona that was brought back, and the channels that have other personas by now."""

    persona: Persona
    changed_channels: tuple[int, ...] = ()


@dataclass(frozen=True)
class PersonaRemoval:
    """Removes personas of guilds (0: those of all) and brings them back."""

    personas: PersonaRegistry
    store: Store
    lore: GuildLore

    @property
    def _home(self) -> Path:
        return self.lore.home

    def belongings(self, guild_id: int, persona: Persona, trainings: int) -> PersonaBelongings:
        """Count what a persona has, with the open trainings that the queue knows."""
        settings = self.store.guilds.persona_settings(persona.id)
        return PersonaBelongings(
            live=self.store.versions.live(persona.id, guild_id) or "",
            versions=len(self.store.versions.installed(persona.id)),
            channels=len(settings["channels"]),
            memories=self.store.memories.count(persona.id),
            lore_files=len(self.lore.files(guild_id, persona.id)),
            trainings=trainings,
        )

    async def remove(self, guild_id: int, persona: Persona) -> TrashEntry:
        """Move a persona into the trash with its lore, channels and settings. Versions and memories
        stay where they are; memories are deleted with the entry.

        Raises `RefusedError` for a bundled one, and `OSError`.
        """
        self.personas.require_removable(guild_id, persona)
        with self.store.atomic():
            settings = self._settings(persona.id)
            entry = TrashEntry(
                guild_id=guild_id,
                kind="persona",
                id=persona.id,
                name=persona.name,
                at=time.time(),
                facts=settings,
            )
            self.store.guilds.record_persona_removal(persona.id, entry.at)
            self.store.guilds.forget_persona_settings(persona.id)
            self.personas.remove(
                guild_id, persona, entry, lore_parts(self._home, guild_id, persona.id)
            )
        await self.lore.refresh(guild_id, persona.id)
        return entry

    async def bring_back(
        self, guild_id: int, persona_id: str, *, stamp: str, by: int
    ) -> BroughtBack:
        """Bring a removed persona back, with its channels unless they have others by now; `by` is
        the member who asks for it.

        Raises `RefusedError` where it is too late, or another persona has its name by now.
        """
        entry = require_entry(self._home, guild_id, kind="persona", id=persona_id, stamp=stamp)
        lore = lore_parts(self._home, guild_id, persona_id)
        persona = await asyncio.to_thread(self.personas.bring_back, entry, lore)
        channels = [
            {**channel, "personas": self._stayed(channel)} for channel in entry.facts["channels"]
        ]
        changed = self.store.guilds.restore_persona_settings(
            persona_id, {**entry.facts, "channels": channels}, set_by=by, at=time.time()
        )
        await self.lore.refresh(guild_id, persona_id)
        return BroughtBack(persona, tuple(changed))

    def _stayed(self, channel: JsonObject) -> list[str]:
        """List those of a channel's personas that are not removed."""
        personas: list[str] = channel["personas"]
        return [persona for persona in personas if self.personas.find_owner(persona)]

    def _settings(self, persona_id: str) -> JsonObject:
        """Return a persona's channels and settings, for its entry."""
        settings = self.store.guilds.persona_settings(persona_id)
        for channel in settings["channels"]:
            channel["personas"] = self._with_removed(channel)
        return settings

    def _with_removed(self, channel: JsonObject) -> list[str]:
        """List the personas of a channel, and in their places those that were removed from it and
        can come back, in whatever order.
        """
        present: list[str] = channel["personas"]
        for entry in list_entries(self._home, "persona"):  # the newest has the others, too
            for before in entry.facts["channels"]:
                if _place(before) == _place(channel) and self._stayed(before) == present:
                    return list(before["personas"])
        return present

    def removed(self) -> list[TrashEntry]:
        """List the personas and sets of lore that can be brought back, newest first."""
        now = time.time()
        entries = []
        for entry in list_entries(self._home):
            if entry.kind in ("persona", "lore-set") and entry.is_kept(now):
                entries.append(entry)
        return entries

    def forget_memories(self, now: float) -> None:
        """Delete what personas that were removed more than a day ago remember of members."""
        guilds = self.store.guilds
        for persona_id in guilds.personas_removed_before(now - KEPT_S):
            if self.personas.find_owner(persona_id) is None:
                guilds.forget_persona_memories(persona_id)

    async def empty_trash(self, now: float) -> None:
        """Delete for good what was removed or replaced more than a day ago, by anything that keeps
        it in the trash. Raises `OSError`.
        """
        for entry in list_entries(self._home):
            if entry.is_kept(now):
                continue
            if entry.kind == "persona":
                self._forget(entry)
            if entry.kind in ("persona", "lore-set"):
                self.lore.delete_revisions(entry.guild_id, entry.id)
            await asyncio.to_thread(delete_entry, self._home, entry)
            if entry.kind == "lore-file":
                self._forget_file(entry)

    def _forget(self, entry: TrashEntry) -> None:
        """Delete what is known of a persona beside its entry."""
        self.store.people.remove_contributions(entry.guild_id, entry.id)
        card = self._home / "personas" / str(entry.guild_id) / entry.id / CARD_FILE
        RevisionHistory.of(self._home, card).forget()
        LoreSets(self.lore.shipped or Path(), self._home).forget(entry.id)

    def _forget_file(self, entry: TrashEntry) -> None:
        """Delete what is known of a lore file beside its entry."""
        if not self.lore.is_known(entry.guild_id, entry.id, entry.name):
            self.lore.earlier(entry.guild_id, entry.id, entry.name).forget()
            self.store.people.remove_contribution(entry.guild_id, entry.id, entry.name)


def _place(channel: JsonObject) -> tuple[int, int]:
    return channel["guild_id"], channel["channel_id"]
