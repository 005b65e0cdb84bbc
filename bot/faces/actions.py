"""Gives the bot the face of a persona in a server: its name as nickname, its picture as the bot's
there.

What is wanted is stored before Discord is asked, and compared with what Discord has confirmed every
few seconds. So a change of the card is followed, and a change that was interrupted or refused is
made later.
"""

import asyncio
import hashlib
import logging
import time
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import discord

from bot.chat.delivery import UNCERTAIN_ERRORS, is_temporary, retry_after_s
from bot.faces.store import BotFace
from bot.moderation.age import AgeRestriction
from bot.personas.registry import PersonaRegistry
from bot.platform.change_record import ChangeRecord, no_record
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy
from bot.platform.messages import markdown_name
from bot.platform.permissions import CHANGE_NICKNAME, guild_remedy, permission_title
from bot.store import Store, guild_suffix
from personas.schemas.chat import Persona

log = logging.getLogger(__name__)
MAX_NICK_UNITS = 32
"""Characters of a nickname, in UTF-16 as Discord counts them."""
CHANGE_TIMEOUT_S = 20.0
RETRY_DELAY_S = 30.0
"""Pause after Discord has not answered."""
REFUSED_DELAY_S = 600.0
"""Pause after Discord has refused a face: it lets pictures change only now and then."""
MAX_DIGESTS = 20_000
"""More than the faces that a process follows: every round reads the pictures beyond these again."""
WHY = "the face of a persona"
"""Stands in Discord's audit log."""


@dataclass(frozen=True)
class Face:
    """A nickname and a picture; both None for the bot's own."""

    nick: str | None = None
    picture: Path | None = None

    @classmethod
    def of(cls, persona: Persona) -> "Face":
        picture = persona.avatar if persona.avatar and persona.avatar.is_file() else None
        return cls(_nickname(persona), picture)

    @property
    def digest(self) -> str:
        """Stands for name and picture in the store."""
        picture = _picture_digest(self.picture) if self.picture else ""
        return hashlib.sha256(f"{self.nick}\n{picture}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class FaceState:
    """The persona whose face the bot is to have in a guild (None: its own), whether Discord shows
    it, and why not.
    """

    persona: Persona | None
    is_shown: bool
    problem: str


@dataclass
class FaceActions:
    """The bot's faces in the guilds of a client, which is None for a dashboard without Discord."""

    store: Store
    personas: PersonaRegistry
    client: discord.Client | None
    record_change: ChangeRecord = no_record
    _turns: dict[int, asyncio.Lock] = field(default_factory=dict)
    """By guild: faces are changed one after another."""
    _retry_at: dict[int, float] = field(default_factory=dict)
    """By guild, the monotonic time before which Discord is not asked again."""
    _problems: dict[int, str] = field(default_factory=dict)
    """By guild, why the face that is wanted is not shown."""
    _compared: set[int] = field(default_factory=set)
    """Guilds whose nickname was compared with the stored face since the bot came there or started."""

    def wearer(self, guild_id: int) -> Persona | None:
        """Return the persona whose present name and picture the bot shows in a guild."""
        face = self.store.faces.get(guild_id)
        persona = self._persona(face)
        if face and persona and face.shown == Face.of(persona).digest:
            return persona
        return None

    def is_worn(self, persona: Persona, guild_id: int) -> bool:
        """Report whether the bot shows a persona's present name and picture in a guild."""
        wearer = self.wearer(guild_id)
        return wearer is not None and wearer.id == persona.id

    def chosen(self, guild_id: int) -> Persona | None:
        """Return the persona whose face the bot is to have in a guild."""
        return self._persona(self.store.faces.get(guild_id))

    def own_names(self, guild_id: int) -> set[str]:
        """Return what the bot itself is called in a guild; a nickname that is a persona's is not the
        bot's. Cards are read in threads: it asks no database.
        """
        if self.client is None or self.client.user is None:
            return set()
        names = {self.client.user.name, self.client.user.display_name}
        guild = self.client.get_guild(guild_id)
        if guild and not guild.unavailable and guild.me.nick:
            names.add(guild.me.nick)
        return names - set(map(_nickname, self.personas.of(guild_id).values()))

    def problem(self, guild_id: int) -> str:
        """Say why the face that is wanted in a guild is not shown; empty where it is, or nobody has
        tried yet.
        """
        return self._problems.get(guild_id, "")

    def state(self, guild_id: int) -> FaceState:
        """Return which face the bot has in a guild, or is to have."""
        persona = self.chosen(guild_id)
        is_shown = persona is not None and self.is_worn(persona, guild_id)
        problem = self.problem(guild_id)
        if persona and not is_shown:
            problem = problem or gettext_lazy("Discord has yet to show it.")
        return FaceState(persona, is_shown, "" if is_shown else problem)

    async def choose(self, guild: discord.Guild, persona: Persona, by: int) -> str:
        """Give the bot a persona's face in a guild. Returns why Discord does not show it yet; empty
        if it does. Raises `RefusedError`, and the face before stays, where the bot may not, and
        for an age-restricted persona: a face shows in all channels.
        """
        if AgeRestriction(self.store).applies(persona, guild.id):
            raise RefusedError(
                gettext_lazy(
                    "{persona} is age-restricted, and the bot's name and picture show in every "
                    "channel.",
                    persona=markdown_name(persona),
                ),
                gettext_lazy("Name another persona."),
            )
        if problem := _lacking(guild, Face.of(persona)):
            raise RefusedError(problem)
        before = self.store.faces.get(guild.id)
        if before is None or before.persona_id != persona.id:
            self.store.faces.choose(guild.id, persona.id)
            name = f"**{markdown_name(persona)}**"
            what = gettext_lazy("made {persona} the face of the bot", persona=name)
            self.record_change(guild.id, by, what)
        return await self._try_now(guild)

    async def take_off(self, guild: discord.Guild, by: int) -> str:
        """Give the bot its own face back in a guild. Returns why Discord does not show it yet;
        empty if it does.
        """
        if self.store.faces.get(guild.id) is None:
            return ""  # a nickname that the bot may have there is not a persona's
        if before := self.chosen(guild.id):
            name = f"**{markdown_name(before)}**"
            what = gettext_lazy("took the face of {persona} off the bot", persona=name)
            self.record_change(guild.id, by, what)
        self.store.faces.choose(guild.id, None)
        return await self._try_now(guild)

    async def _try_now(self, guild: discord.Guild) -> str:
        self._retry_at.pop(guild.id, None)
        await self._bring_up_to_date(guild)
        return self.problem(guild.id)

    async def bring_up_to_date(self) -> None:
        """Have Discord show the wanted face wherever it does not."""
        for face in self.store.faces.all():
            await asyncio.sleep(0)  # there may be thousands
            guild = self.client.get_guild(face.guild_id) if self.client else None
            if guild and not guild.unavailable:
                await self._bring_up_to_date(guild)

    def note_join(self, guild_id: int) -> None:
        """Note that the bot has come to a guild, where it has no nickname, whatever is stored."""
        self._compared.discard(guild_id)

    async def _bring_up_to_date(self, guild: discord.Guild) -> None:
        async with self._turns.setdefault(guild.id, asyncio.Lock()):
            face = self.store.faces.get(guild.id)
            if face is None:
                return
            persona = self._persona(face)
            if face.persona_id and persona is None:
                short_id = f"`{face.persona_id.removesuffix(guild_suffix(guild.id))}`"
                what = gettext_lazy("took off the face of {persona}, who is gone", persona=short_id)
                if self.personas.get(face.persona_id, guild.id):
                    what = gettext_lazy(
                        "took off the face of {persona}, who is age-restricted", persona=short_id
                    )
                self.record_change(guild.id, None, what)
                face = self._unconfirmed(BotFace(guild.id, None, ""))
            wanted = Face.of(persona) if persona else Face()
            if guild.id not in self._compared:
                self._compared.add(guild.id)
                if guild.me.nick != wanted.nick:  # the database may be a restored one
                    face = self._unconfirmed(face)
            if face.shown == wanted.digest:
                self._problems.pop(guild.id, None)
            else:
                await self._change(guild, face, wanted)

    def _unconfirmed(self, face: BotFace) -> BotFace:
        """Store that Discord has yet to confirm a face."""
        self.store.faces.choose(face.guild_id, face.persona_id)
        return replace(face, shown="")

    async def _change(self, guild: discord.Guild, face: BotFace, wanted: Face) -> None:
        """Ask Discord for a face, unless it refused one lately, or the bot may not."""
        if problem := _lacking(guild, wanted):
            self._note_problem(guild, problem)
            return
        if time.monotonic() < self._retry_at.get(guild.id, 0.0):
            return
        self._unconfirmed(face)
        try:
            picture = await asyncio.to_thread(wanted.picture.read_bytes) if wanted.picture else None
            may_rename = guild.me.guild_permissions.change_nickname
            nick = wanted.nick if may_rename else discord.utils.MISSING
            async with asyncio.timeout(CHANGE_TIMEOUT_S):
                await guild.me.edit(nick=nick, avatar=picture, reason=WHY)
        except (*UNCERTAIN_ERRORS, discord.HTTPException, discord.RateLimited, ValueError) as error:
            delay_s = RETRY_DELAY_S if isinstance(error, UNCERTAIN_ERRORS) else REFUSED_DELAY_S
            self._retry_at[guild.id] = time.monotonic() + max(delay_s, retry_after_s(error))
            self._note_problem(guild, _refusal(error))
            return
        self.store.faces.record_shown(guild.id, face.persona_id, wanted.digest)
        if self._problems.pop(guild.id, ""):
            log.info("the face of the bot in %s is shown now", guild)

    def _note_problem(self, guild: discord.Guild, problem: str) -> None:
        if self._problems.get(guild.id) != problem:
            self._problems[guild.id] = problem
            log.warning("the face of the bot in %s stays as it is: %s", guild, problem)

    def _persona(self, face: BotFace | None) -> Persona | None:
        """Return the persona of a face; None where it is gone, or age-restricted since."""
        if face is None or face.persona_id is None:
            return None
        persona = self.personas.get(face.persona_id, face.guild_id)
        if persona and AgeRestriction(self.store).applies(persona, face.guild_id):
            return None
        return persona


def _lacking(guild: discord.Guild, wanted: Face) -> str:
    """Say which permission the bot lacks for a face, and what to do; empty where it lacks none."""
    if guild.me.nick == wanted.nick or guild.me.guild_permissions.change_nickname:
        return ""
    title = permission_title(CHANGE_NICKNAME)
    return gettext_lazy(
        "I lack the permission {permission}. {remedy}",
        permission=title,
        remedy=guild_remedy(CHANGE_NICKNAME),
    )


def _refusal(error: Exception) -> str:
    """Say why Discord does not show a face, and what to do."""
    if isinstance(error, discord.Forbidden):
        return gettext_lazy(
            "Discord does not let me change my nickname here. {remedy}",
            remedy=guild_remedy(CHANGE_NICKNAME),
        )
    if isinstance(error, ValueError):
        return gettext_lazy(
            "Discord takes PNG, JPEG, GIF and WebP. Give the persona such a picture."
        )
    if isinstance(error, UNCERTAIN_ERRORS):
        return gettext_lazy("Discord does not answer. I try again by myself.")
    if is_temporary(error) or "RATE_LIMIT" in str(vars(error).get("_errors")):
        return gettext_lazy(
            "Discord lets names and pictures change only now and then. I try again by myself."
        )
    return gettext_lazy(
        "Discord refuses the name or the picture ({error}). Change that of the persona.",
        error=error,
    )


def _nickname(persona: Persona) -> str:
    """Return a persona's name as far as it fits into a nickname, with single spaces as Discord keeps
    it.
    """
    name, nickname = (" ".join(text.split()) for text in (persona.name, persona.nickname))
    for fitting in (name, nickname):
        if fitting and _units(fitting) <= MAX_NICK_UNITS:
            return fitting
    short = name
    while _units(short) >= MAX_NICK_UNITS:
        short = short[:-1]
    return f"{short.rstrip()}…"


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


@lru_cache(MAX_DIGESTS)
def _picture_digest(picture: Path) -> str:
    # Where a card has another picture, the file has another name.
    return hashlib.sha256(picture.read_bytes()).hexdigest()
