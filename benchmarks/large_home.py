"""Generates a home with many servers, personas and messages, as it is after years, in some
seconds.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bot.store import HOME_DATABASE, JobResult, Store, guild_suffix
from personas.home.adapters import MANIFEST_FILE, adapter_ref
from personas.home.shared_personas import CARD_FILE
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import ScoreSummary

GUILDS = 1_000
PERSONAS_PER_GUILD = 5
MESSAGES = 200_000
VERSION_SHARE = 5
"""One persona in so many has versions."""
UNDECIDED_SHARE = 50
"""One in so many has a version that is not promoted yet."""
LORE_SHARE = 50
"""One in so many has lore of its own."""
NOW_S = 1_795_000_000.0
MESSAGE_INTERVAL_S = 20.0
MEMBERS_PER_GUILD = 40
FIRST_MESSAGE_ID = 10**18
FORENAMES = (
    "Maren",
    "Tobb",
    "Isolde",
    "Quill",
    "Hesper",
    "Dunstan",
    "Orla",
    "Peregrin",
    "Sable",
    "Wyn",
)
TRADES = (
    "ferryman",
    "bell founder",
    "net mender",
    "lamp keeper",
    "cartographer",
    "eel smoker",
    "tide clerk",
)
REMARKS = (
    "has the packet boat come in "
    "yet?", "somebody left a lantern on the third bollard", "is the market open?",
    "I would rather ask the tide "
    "clerk", "the bell rang twice, and nobody knows why", "do eels mind the cold?",
)  # fmt: skip
CARD = """id = "{id}"
name = "{name}"
tagline = "{trade} of quay {number}"
description = '''{name} has been the {trade} of quay {number} for {years} years, and keeps a ledger of every hull that
came in late. {name} speaks in short sentences, dislikes gulls, and answers questions with what the ledger says.'''
first_mes = "Quay {number}. Mind the rope."
mes_example = '''<START>
{{{{user}}}}: Is the ferry late?
{{{{char}}}}: Later than the ledger likes.'''
"""


@dataclass(frozen=True)
class GuildPlace:
    """A server of the home, and its channels, of which each gets a persona."""

    guild_id: int
    channel_ids: tuple[int, ...]


@dataclass(frozen=True)
class LargeHome:
    """Sizes of a home: personas of each server, and messages in all. Versions are made for the
    model of `base_hash`.
    """

    places: Sequence[GuildPlace]
    personas_per_guild: int = PERSONAS_PER_GUILD
    messages: int = MESSAGES
    base_hash: str = ""

    def write(self, home: Path) -> None:
        """Write cards, lore, adapters' manifests and the database into an empty home."""
        personas = list(self.personas())
        for guild_id, persona_id, number in personas:
            _write_card(home, guild_id, persona_id, number)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with Store.open(home / HOME_DATABASE) as store:
            store.guilds.known()  # the schema is there
        connection = sqlite3.connect(home / HOME_DATABASE)
        with connection:
            _fill_channels(connection, self.places, personas)
            _fill_messages(connection, self.places, personas, self.messages)
            _fill_versions(connection, personas)
        connection.close()
        for _, persona_id, number in personas:
            if number % VERSION_SHARE == 0:
                _write_manifest(home, persona_id, self.base_hash)

    def personas(self) -> Iterator[tuple[int, str, int]]:
        """Yield guild, id and number of each persona."""
        for place_number, place in enumerate(self.places):
            for n in range(self.personas_per_guild):
                yield (
                    place.guild_id,
                    f"keeper-{n}{guild_suffix(place.guild_id)}",
                    place_number * 100 + n,
                )


def synthetic_places(guilds: int = GUILDS, channels: int = PERSONAS_PER_GUILD) -> list[GuildPlace]:
    """Return servers that no Discord knows, for homes that are looked at without a connection."""
    return [
        GuildPlace(
            FIRST_MESSAGE_ID + n * 1000,
            tuple(FIRST_MESSAGE_ID + n * 1000 + c for c in range(1, channels + 1)),
        )
        for n in range(guilds)
    ]


def _write_card(home: Path, guild_id: int, persona_id: str, number: int) -> None:
    folder = home / "personas" / str(guild_id) / persona_id
    folder.mkdir(parents=True)
    name = f"{FORENAMES[number % 10]} {number}"
    trade = TRADES[number % 7]
    text = CARD.format(id=persona_id, name=name, trade=trade, number=number, years=number % 50 + 2)
    (folder / CARD_FILE).write_text(text, encoding="utf-8")
    if number % LORE_SHARE == 0:
        lore = home / "lore" / str(guild_id) / persona_id
        lore.mkdir(parents=True)
        (lore / "quay.md").write_text(
            f"# Quay {number}\nThe ledger of quay {number} is kept in a tin box.\n"
        )


def _write_manifest(home: Path, persona_id: str, base_hash: str) -> None:
    folder = adapter_ref(home, persona_id, "v1").folder
    folder.mkdir(parents=True)
    (folder / MANIFEST_FILE).write_text(
        json.dumps({"base_model": "embedded", "base_model_hash": base_hash})
    )


def _fill_channels(
    connection: sqlite3.Connection,
    places: Sequence[GuildPlace],
    personas: Sequence[tuple[int, str, int]],
) -> None:
    of_guild: dict[int, list[str]] = {}
    for guild_id, persona_id, _ in personas:
        of_guild.setdefault(guild_id, []).append(persona_id)
    rows = [
        (place.guild_id, channel_id, persona_id, 0, "mentions", 1, NOW_S)
        for place in places
        for channel_id, persona_id in zip(place.channel_ids, of_guild[place.guild_id], strict=False)
    ]
    columns = "guild_id, channel_id, persona_id, position, answers, set_by, set_at"
    connection.executemany(
        f"insert into channel_personas ({columns}) values (?, ?, ?, ?, ?, ?, ?)", rows
    )


def _fill_messages(
    connection: sqlite3.Connection,
    places: Sequence[GuildPlace],
    personas: Sequence[tuple[int, str, int]],
    count: int,
) -> None:
    persona_of = {guild_id: persona_id for guild_id, persona_id, _ in personas}

    def rows() -> Iterator[tuple[object, ...]]:
        for n in range(count):
            place = places[n % len(places)]
            turn = n // len(places)
            channel_id = place.channel_ids[turn % len(place.channel_ids)]
            is_reply = turn // len(place.channel_ids) % 2 == 1
            member = 10**17 + place.guild_id % 10**9 * 100 + turn % MEMBERS_PER_GUILD
            yield (
                place.guild_id, channel_id, turn // len(place.channel_ids) + 1, FIRST_MESSAGE_ID + 10**12 + n,
                0 if is_reply else member, "persona" if is_reply else f"{FORENAMES[turn % 10]}",
                persona_of[place.guild_id] if is_reply else None, f"{REMARKS[n % len(REMARKS)]} ({n})",
                NOW_S - MESSAGE_INTERVAL_S * (count - n),
            )  # fmt: skip

    columns = (
        "guild_id, channel_id, ordinal, discord_message_id, author_id, author_name, persona_id, "
        "text, at"
    )
    connection.executemany(
        f"insert into messages ({columns}) values (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows()
    )


def _fill_versions(
    connection: sqlite3.Connection, personas: Sequence[tuple[int, str, int]]
) -> None:
    card = ScoreSummary(
        heldout_replies=40,
        heldout_tokens=900,
        loss_base=3.1,
        loss_tuned=2.4,
        general_loss_base=2.9,
        general_loss_tuned=2.9,
        precision="bfloat16",
        verdict="promote",
        reasons=("Its replies are closer to the card.",),
    )
    result = JobResult(adapter="adapter", seconds=60.0, scorecard=card)
    jobs = []
    versions = []
    promotions = []
    for guild_id, persona_id, number in personas:
        if number % VERSION_SHARE:
            continue
        request = TrainingRequest(job_name="keeper", persona=persona_id).model_dump_json(
            exclude_none=True
        )
        job_id = f"job{number:06}"
        at = NOW_S - number
        jobs.append(
            (
                job_id,
                guild_id,
                1,
                1,
                persona_id,
                request,
                persona_id,
                at,
                at,
                at,
                result.model_dump_json(),
            )
        )
        versions.append((persona_id, "v1", job_id, at, card.model_dump_json()))
        if number % UNDECIDED_SHARE:
            promotions.append((persona_id, "v1", 1, at, "", guild_id))
    columns = (
        "job_id, guild_id, channel_id, requested_by, name, request, persona, queued_at, "
        "started_at, finished_at"
    )
    connection.executemany(
        f"""insert into jobs ({columns}, result, version, state, decision, announced)
        values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'v1', 'done', 'manual', 1)""",
        jobs,
    )
    columns = "persona_id, version, job_id, installed_at, scorecard"
    connection.executemany(f"insert into versions ({columns}) values (?, ?, ?, ?, ?)", versions)
    columns = "persona_id, version, promoted_by, at, why, guild_id"
    connection.executemany(
        f"insert into promotions ({columns}) values (?, ?, ?, ?, ?, ?)", promotions
    )
