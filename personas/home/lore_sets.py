"""Named sets of lore that a persona or a server takes or leaves, such as the lore of a world.

A set is a folder of lore whose name begins with an underscore; `set.toml` in it names the set and
the personas that it was written for. Everybody else takes it by choice. The choices of a guild
are in `lore/GUILD/sets.json` of the home, so that the bot and the trainer's commands see the same
lore.
"""

import json
import threading
import time
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from personas.card.toml_card import MAX_NAME_CHARS, visible_name
from personas.errors import LoreError
from personas.home.atomic_files import write_file
from personas.home.toml_text import toml_value
from personas.home.trash import TrashEntry, entries_of, take_back, throw_away
from personas.ids import free_id
from personas.lore.passages import WORLD
from personas.schemas.chat import fold_name

SET_FILE = "set.toml"
CHOICES_FILE = "sets.json"
SET_PREFIX = "_"
SET_PART = "set"
"""Name of a set's folder in the trash."""
ALL_PERSONAS = "*"
"""Stands for all personas of a server in a choice."""
ANY_GUILD = 0
"""Stands for all guilds without a choice of their own; the id of the operator's lore."""


@dataclass(frozen=True)
class LoreSet:
    """A named set of lore. `personas` are those that it was written for; None for everybody."""

    id: str
    name: str
    about: str = ""
    personas: frozenset[str] | None = frozenset()

    def is_for(self, persona_id: str) -> bool:
        """Report whether it was written for this persona, which uses it without a choice."""
        return self.personas is None or persona_id in self.personas


def find_lore_sets(shipped: Path, home: Path) -> dict[str, LoreSet]:
    """Find the sets by id: those that ship, then the operator's in the home. Raises `LoreError`
    for a `set.toml` that cannot be read.

    The world's is always there, as files anywhere may belong to it (`lore_folder`). Without a
    `set.toml` it is everybody's.
    """
    sets = {WORLD: LoreSet(WORLD, "The world", personas=None)}
    for folder in (shipped, home / "lore" / str(ANY_GUILD)):
        for path in sorted(folder.glob("_*/")):
            if (path / SET_FILE).is_file() or path.name not in sets:
                sets[path.name] = _read_set(path)
    return sets


def _read_set(folder: Path) -> LoreSet:
    title = folder.name.strip("_").replace("-", " ").replace("_", " ").title()
    file = folder / SET_FILE
    try:
        table: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return LoreSet(folder.name, title)
    except (OSError, ValueError) as error:
        raise LoreError(f"{file} cannot be read: {error}.", "It is TOML with a name.") from None
    personas = table.get("personas", [])
    if not isinstance(personas, list):
        raise LoreError(f"`personas` in {file} is no list.", 'For example: personas = ["wick"]')
    return LoreSet(
        folder.name,
        name=str(table.get("name", title)),
        about=str(table.get("about", "")),
        personas=frozenset(map(str, personas)),
    )


GuildChoices = Mapping[str, Mapping[str, bool]]
"""By persona, then by set: True for a set that is taken, False for one that is left."""


class LoreSets:
    """The sets of a home, and who takes them. May be used from any thread."""

    def __init__(self, shipped: Path, home: Path) -> None:
        """`shipped` is the folder of the bundled lore, `home` is UNDERSTUDY_HOME."""
        self._shipped = shipped
        self._folder = home / "lore"
        self._home = home
        self._read_choices: dict[int, tuple[tuple[int, int], GuildChoices]] = {}
        self._writing = threading.Lock()

    @cached_property
    def sets(self) -> dict[str, LoreSet]:
        """The sets by id. Raises `LoreError`."""
        return find_lore_sets(self._shipped, self._home)

    def find(self, wanted: str) -> LoreSet:
        """Find a set by its id, else by its name. Raises `LoreError`, which lists them."""
        for key in (wanted, fold_name(wanted)):
            if lore_set := self.sets.get(key):  # whatever the others are called
                return lore_set
        for lore_set in self.sets.values():
            if fold_name(wanted) == fold_name(lore_set.name):
                return lore_set
        names = ", ".join(lore_set.name for lore_set in self.sets.values()) or "none"
        raise LoreError(f"There is no set of lore {wanted[:80]!r}.", f"There are: {names}.")

    def create(self, name: str) -> LoreSet:
        """Create a set that nobody uses yet, in the home. Raises `LoreError` for a name that is taken
        or has no letters, and `OSError`.
        """
        shown = self._free_name(name)
        created = LoreSet(SET_PREFIX + free_id(shown, self._is_taken), shown)
        self._store(created)
        return created

    def _is_taken(self, plain_id: str) -> bool:
        set_id = SET_PREFIX + plain_id
        removed = entries_of(self._home, ANY_GUILD, "lore-set", set_id)
        return set_id in self.sets or bool(removed)

    def rename(self, set_id: str, name: str) -> LoreSet:
        """Rename a set of the home; its id, lore and users stay. Raises `LoreError` for a set that
        ships, and for a name that is taken or has no letters, and `OSError`.
        """
        renamed = replace(self.require_own(set_id), name=self._free_name(name, set_id))
        self._store(renamed)
        return renamed

    def remove(self, set_id: str) -> TrashEntry:
        """Move a set of the home into the trash, with who uses it. Raises `LoreError` for a set that
        ships, and `OSError`.
        """
        name = self.require_own(set_id).name
        with self._writing:
            users = []
            left: dict[int, dict[str, dict[str, bool]]] = {}
            for guild_id in self._guilds_with_choices():
                choices = {persona: dict(sets) for persona, sets in self.choices(guild_id).items()}
                for persona_id, sets in choices.items():
                    if (taken := sets.pop(set_id, None)) is not None:
                        users.append((guild_id, persona_id, taken))
                left[guild_id] = choices
            entry = TrashEntry(
                guild_id=ANY_GUILD,
                kind="lore-set",
                id=set_id,
                name=name,
                at=time.time(),
                facts={"users": users},
            )
            throw_away(self._home, entry, {SET_PART: self._folder / str(ANY_GUILD) / set_id})
            for guild_id, kept in left.items():
                self._write(guild_id, kept)
            self.sets = {other: kept for other, kept in self.sets.items() if other != set_id}
        return entry

    def bring_back(self, entry: TrashEntry) -> LoreSet:
        """Bring a removed set back, with who used it. Raises `LoreError` where another set has its
        name by now, and `OSError`.
        """
        self._free_name(entry.name)
        folder = self._folder / str(ANY_GUILD) / entry.id
        take_back(self._home, entry, {SET_PART: folder})
        self.sets = {**self.sets, entry.id: _read_set(folder)}
        for guild_id, persona_id, taken in entry.facts["users"]:
            self.choose(entry.id, taken, guild_id=guild_id, persona_id=persona_id)
        return self.sets[entry.id]

    def is_own(self, set_id: str) -> bool:
        """Report whether a set was made in this home; others ship."""
        return set_id != WORLD and set_id in self.sets and not (self._shipped / set_id).is_dir()

    def require_own(self, set_id: str) -> LoreSet:
        """Return a set that was made in this home. Raises `LoreError` for any other."""
        lore_set = self.find(set_id)
        if not self.is_own(lore_set.id):
            raise LoreError(
                f"{lore_set.name} came with the bot: it is not renamed or removed.",
                "A persona's page of lore says whether it uses it.",
            )
        return lore_set

    def _free_name(self, name: str, set_id: str = "") -> str:
        """Return a name as it is shown. Raises `LoreError` if another set than this one has it."""
        shown = visible_name(name)
        advice = f"Use 1 to {MAX_NAME_CHARS} visible characters."
        if not shown:
            raise LoreError("A set of lore needs a name.", advice)
        if len(shown) > MAX_NAME_CHARS:
            raise LoreError(f"The name has {len(shown):,} characters.", advice)
        for other in self.sets.values():
            if other.id != set_id and fold_name(shown) == fold_name(other.name):
                raise LoreError(f"There is a set {other.name} already.", "Choose another name.")
        return shown

    def _store(self, lore_set: LoreSet) -> None:
        """Write a set's `set.toml`. Nothing is read again: another set's broken file would refuse
        one that is stored.
        """
        folder = self._folder / str(ANY_GUILD) / lore_set.id
        fields = {
            "name": lore_set.name,
            "about": lore_set.about,
            "personas": sorted(lore_set.personas or ()),
        }
        lines = [f"{field} = {toml_value(stated)}\n" for field, stated in fields.items()]
        with self._writing:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(folder / SET_FILE, "".join(lines).encode())
            self.sets = {**self.sets, lore_set.id: lore_set}

    def taken(self, persona_id: str, guild_id: int = ANY_GUILD) -> list[str]:
        """Return the ids of the sets that a persona takes in a guild."""
        chosen = self._chosen(persona_id, guild_id)
        ids = []
        for lore_set in self.sets.values():
            if chosen.get(lore_set.id, lore_set.is_for(persona_id)):
                ids.append(lore_set.id)
        return ids

    def _chosen(self, persona_id: str, guild_id: int) -> dict[str, bool]:
        """The choices that hold for a persona in a guild: its own there, else the guild's for all,
        else its own everywhere.
        """
        guild = self.choices(guild_id)
        places = (
            self.choices(ANY_GUILD).get(persona_id, {}),
            guild.get(ALL_PERSONAS, {}),
            guild.get(persona_id, {}),
        )
        chosen: dict[str, bool] = {}
        for place in places:
            chosen |= place
        return chosen

    def choices(self, guild_id: int) -> GuildChoices:
        """Return what was chosen in a guild, read again after another process has written it."""
        file = self._file(guild_id)
        try:
            status = file.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            known = self._read_choices.get(guild_id)
            if known and known[0] == stamp:
                return known[1]
            choices: GuildChoices = json.loads(file.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise LoreError(f"{file} is no JSON: {error}.", "Delete it to start anew.") from None
        self._read_choices[guild_id] = stamp, choices
        return choices

    def choose(self, set_id: str, taken: bool | None, *, guild_id: int, persona_id: str) -> None:
        """Take or leave a set for a persona in a guild; None forgets the choice. Raises `OSError`."""
        with self._writing:
            choices = {persona: dict(sets) for persona, sets in self.choices(guild_id).items()}
            own = choices.setdefault(persona_id, {})
            own.pop(set_id, None)
            if taken is not None:
                own[set_id] = taken
            self._write(guild_id, choices)

    def choose_for_all(self, set_id: str, taken: bool, guild_id: int) -> None:
        """Take or leave a set for all personas of a guild, whatever was chosen for single ones.
        Raises `OSError`.
        """
        with self._writing:
            choices = {persona: dict(sets) for persona, sets in self.choices(guild_id).items()}
            for sets in choices.values():
                sets.pop(set_id, None)
            choices.setdefault(ALL_PERSONAS, {})[set_id] = taken
            self._write(guild_id, choices)

    def forget(self, persona_id: str) -> None:
        """Forget all choices for a persona, in any guild. Raises `OSError`."""
        with self._writing:
            for guild_id in self._guilds_with_choices():
                choices = dict(self.choices(guild_id))
                if choices.pop(persona_id, None) is not None:
                    self._write(guild_id, choices)

    def _guilds_with_choices(self) -> list[int]:
        folders = [file.parent.name for file in self._folder.glob(f"*/{CHOICES_FILE}")]
        return [int(name) for name in folders if name.isdecimal()]

    def adopt(self, personas: Iterable[tuple[int, str]]) -> None:
        """Let the personas of a home from before there were choices, by guild and id, keep what all
        personas had then. Does nothing at later starts. Raises `OSError`.
        """
        if self._file(ANY_GUILD).exists():
            return
        by_guild: dict[int, dict[str, dict[str, bool]]] = {}
        for guild_id, persona_id in personas:
            missing = [
                lore_set.id for lore_set in self.sets.values() if not lore_set.is_for(persona_id)
            ]
            by_guild.setdefault(guild_id, {})[persona_id] = dict.fromkeys(missing, True)
        with self._writing:
            for guild_id, choices in by_guild.items():
                if guild_id != ANY_GUILD:
                    self._write(guild_id, choices)
            self._write(ANY_GUILD, by_guild.get(ANY_GUILD, {}))  # last: it says that all is done

    def _write(self, guild_id: int, choices: GuildChoices) -> None:
        stated = {persona: sets for persona, sets in sorted(choices.items()) if sets}
        file = self._file(guild_id)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(file, json.dumps(stated, indent=1).encode())

    def _file(self, guild_id: int) -> Path:
        return self._folder / str(guild_id) / CHOICES_FILE
