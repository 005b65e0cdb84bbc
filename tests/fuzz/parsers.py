"""The parsers of what comes from outside, with real inputs to start from and the errors that each
documents.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import random
import tempfile
import zipfile
from collections.abc import Callable, Coroutine, Sequence
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request
from PIL import Image

from bot.chat.file_content import quoted_file, read_file, read_limit
from bot.chat.file_download import HEAD_BYTES
from bot.chat.picture_content import FORMATS
from bot.data.web.forms import parse_build_form, parse_offer_form
from bot.openai_api.web.completion_request import ChatCompletionBody, parse_chat, parse_chat_body
from bot.operations.backup.archive import MANIFEST_NAME, ArchiveWriter, BackupError, open_archive
from bot.personas.guild_lore import MAX_FILE_BYTES
from bot.platform.db.schema import FIRST_VERSION
from bot.platform.web_kit.openapi import operation_spec
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import (
    CACHED_BODY,
    FORM_TYPE,
    read_file_form,
    read_form,
    read_json_object,
)
from bot.platform.web_kit.validation import parse_body
from bot.settings import SettingsError, load_settings
from bot.web_server import ROUTES
from personas.card import charx
from personas.card.card_book import book_as_lore
from personas.card.card_draft import draft_card
from personas.card.card_picture import with_picture
from personas.card.card_reader import parse_card
from personas.card.card_writer import write_card
from personas.card.toml_card import to_persona
from personas.errors import (
    AdapterError,
    CardError,
    ExportError,
    LoreError,
    MaterialError,
    RequestError,
)
from personas.home import external_adapter
from personas.home.adapters import CONFIG_FILE, MANIFEST_FILE, WEIGHTS_FILE
from personas.home.card_adapter import (
    ADAPTER_ASSET_TYPE,
    ADAPTER_URI_PREFIX,
    has_adapter,
    unpack_card_adapter,
)
from personas.home.dataset_catalogue import CATALOGUE_FILE, read_catalogue
from personas.home.job_folder import REQUEST_FILE, read_spec
from personas.lore.key_search import KeySearch
from personas.lore.lore_folder import parse_lore, read_lore_file, scan_lore
from personas.lore.lorebook_markdown import lorebook_as_markdown
from personas.lore.lorebooks import parse_lorebook, read_lorebook
from personas.lore.passages import split_passages
from personas.models.loading import load_torch
from personas.schemas.chat import Persona
from tests.fuzz.answer_parsers import ANSWER_PARSERS
from tests.fuzz.harness import Parser, Seed
from tests.fuzz.mutations import HOSTILE_NAMES, change_zip, mutate
from tests.personas.cards import PIXEL, V1, V2, as_json, v3
from tests.personas.lorebook_samples import AGNAI, KOBOLD, NOVEL_AI, RISU, SILLY_TAVERN
from tests.personas.lorebook_samples import V3 as V3_LOREBOOK
from tests.personas.test_other_cards import PLAIN_TEXTS, PYGMALION, YAML, picture
from tests.trainer import test_chat_logs as logs
from tests.trainer.job_folders import export, persona_job, talks
from tests.trainer.read_sources import jsonl
from tests.trainer.test_foreign_chats import HEADER, NESTED, tavern_lines, tree
from tests.trainer.test_row_formats import SHAPES
from trainer.dataset.job_inputs import read_job_inputs
from trainer.recipe.recipe_file import make_request, requested_recipe
from trainer.sources.reader import read_source
from trainer.sources.source_format import ReadOptions

ROOT = Path(__file__).resolve().parents[2]
LAYERS = {f"model.layers.{n}.self_attn.{side}_proj": (8, 8) for n in range(2) for side in "qv"}
BASE_HASH = "0" * 64
BOUNDARY = "fuzz"


def finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine whose input is there already, so that it never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits for more than was sent")


# -------------------------------------------------------------------------------------------- cards


def read_card(file: Path, out: Path) -> None:
    """Read a card as an import does, and export it to every form again."""
    card = parse_card(file.read_bytes(), file.name)
    to_persona(card, file.name)
    book_as_lore(card)
    if has_adapter(card):
        unpack_card_adapter(card, out, file.name)
    for form in ("json", "toml", "charx", *(["png"] if card.picture else [])):
        write_card(card, form, file.name)  # type: ignore[arg-type]  # mypy knows a text only


def named_cards() -> list[Seed]:
    """Cards with the field names of other programs, too."""
    return [*json_cards(), Seed(YAML, "text", "mira.yaml"), Seed(as_json(PYGMALION), "json")]


def json_cards() -> list[Seed]:
    return [Seed(as_json(card), "json") for card in (V1, V2, v3())]


def png_cards() -> list[Seed]:
    cards = [with_picture(parse_card(seed.content, "it"), PIXEL, "it") for seed in json_cards()]
    written = [write_card(card, "png", "it").content for card in cards]
    return [Seed(content, "png") for content in (*written, picture(*PLAIN_TEXTS))]


def charx_cards() -> list[Seed]:
    picture = {"embeded://assets/icon/images/main.png": PIXEL}
    adapter = {ADAPTER_URI_PREFIX + name: content for name, content in adapter_files().items()}
    assets = [{"type": ADAPTER_ASSET_TYPE, "uri": uri, "name": uri, "ext": "x"} for uri in adapter]
    document = v3()
    carried = {**document, "data": {**document["data"], "assets": assets}}
    return [
        Seed(charx.write(as_json(document), picture), "zip"),
        Seed(charx.write(as_json(carried), adapter), "zip"),
    ]


def toml_cards() -> list[Seed]:
    shipped = [
        Seed(path.read_bytes(), "text")
        for path in sorted((ROOT / "personas" / "cards").glob("*.toml"))
    ]
    return [
        *shipped,
        *(
            Seed(write_card(parse_card(card.content, "x"), "toml", "x").content, "text")
            for card in json_cards()
        ),
    ]


# --------------------------------------------------------------------------------------------- lore


def read_lore(file: Path, out: Path) -> None:
    """Read a lore file as the index and an upload do."""
    if file.stat().st_size > MAX_FILE_BYTES:
        raise LoreError("larger than what is read", "")
    list(scan_lore(file.parent, [Persona("oda", "Oda Marrow")]))
    owners, text = read_lore_file(file)
    assert all(isinstance(owner, str) for owner in owners)
    split_passages("oda", "oda/lore.md", text)
    parse_lore(text, file.name)


def read_lorebook_file(file: Path, out: Path) -> None:
    """Read a lorebook as the doors of lore do, and its markdown as the index does."""
    document = parse_lorebook(file.read_bytes(), file.name)
    book = read_lorebook(document, "Oda", "Guest")
    book.report().lines()
    for text in lorebook_as_markdown(book.entries, "Mill", MAX_FILE_BYTES):
        for passage in split_passages("oda", "oda/lore.md", text):
            if passage.rules:
                KeySearch("the wheel of the mill").match(passage.rules)


def lorebooks() -> list[Seed]:
    books = (SILLY_TAVERN, NOVEL_AI, AGNAI, RISU, KOBOLD, V3_LOREBOOK)
    return [Seed(as_json(book), "json", "mill.json") for book in books]


def read_draft(file: Path, out: Path) -> None:
    draft_card(file)


def lore() -> list[Seed]:
    files = sorted((ROOT / "data" / "rag-resources").rglob("*.md"))
    front = (
        b"---\npersona: [oda, 'Thrip']\ntitle: Soup\ndate: 2026-01-01\n---\n# The soup\n\nIt is "
        b"**salty**.\n\n"
    )
    front += b"| a | b |\n|-|-|\n| 1 | 2 |\n"
    keyed = (
        b"# Mill\n\n## Wheel\n\n<!-- lore\nkeys: wheel, /mill-?race/i\nand any: [night]\norder: "
        b"3\n-->\n"
    )
    keyed += b"\nIt turns.\n"
    return [
        Seed(front, "text", "lore.md"),
        Seed(keyed, "text", "lore.md"),
        *(Seed(path.read_bytes()[:4_000], "text", "lore.md") for path in files[::3]),
    ]


# ----------------------------------------------------------------------------- exports and datasets


def read_records(file: Path, out: Path) -> None:
    """Read all records of a source, used or not, with and without a persona."""
    options = ReadOptions(persona=Persona("ada", "Ada Lace"))
    for item in read_source(file, options):
        assert item.rows >= 0


def json_exports() -> list[Seed]:
    day = [logs.slack("hi", minute=n) for n in range(3)]
    instagram = logs.talk(
        *(
            logs.instagram(text, name, n)
            for n, (text, name) in enumerate((("hi", "Ada"), ("ho", "Mira")))
        )
    )
    telegram = logs.result(
        logs.telegram(1, "hi"), logs.telegram(2, [{"type": "bold", "text": "ho"}], "Ada Lace", 1)
    )
    values = (logs.line(1, "hi"), logs.line(2, "ho", "ada", 1, reply_to=1))
    own = "\n".join(json.dumps(value) for value in values).encode()
    rows = [json.dumps(row).encode() for _, row, _ in SHAPES]
    return [
        Seed(export(talks(2)).encode(), "json", "talk.json"),
        Seed(json.dumps(instagram).encode(), "json", "message_1.json"),
        Seed(json.dumps(telegram).encode(), "json", "result.json"),
        Seed(json.dumps(day).encode(), "json", "2026-03-01.json"),
        Seed(own, "lines", "log.json"), Seed((ROOT / "data/logs/oda.json").read_bytes()[:3_000], "lines", "oda.json"),
        *(Seed(row, "lines", "rows.jsonl") for row in rows),
        Seed(b"\n".join(rows[::4]), "lines", "rows.jsonl"),
        Seed(jsonl([HEADER, *tavern_lines()]), "lines", "chat.jsonl"),
        Seed(json.dumps([tree(current_node="z")]).encode(), "json", "conversations.json"),
        Seed(json.dumps({"messages": NESTED}).encode(), "json", "room.json"),
    ]  # fmt: skip


def text_exports() -> list[Seed]:
    table = io.StringIO()
    dates = ("11-Mar-26 09:00 AM", "11/03/2026 09:20", "2026-03-11T09:00:00.0000000+00:00")
    csv.writer(table).writerows(
        [["AuthorID", "Author", "Date", "Content", "Attachments", "Reactions"]]
        + [["1", "mira#0001", date, 'two\nlines, "quoted"', "", ""] for date in dates]
    )
    whatsapp = (
        "[15.01.24, 10:30:12] Mira: hi\n[15.01.24, 10:31:12] Ada Lace: good\nday\n"
        "\u200e[15.01.24, 10:32:00] Mira: \u200eimage omitted\n",
        "1/15/24, 9:30 PM - Mira: hi\n1/15/24, 9:31 PM - Messages are end-to-end encrypted.\n"
        "1/15/24, 9:32 PM - Ada: *ho*\n",
    )
    personachat = "1 your persona: i like clocks.\n2 Why?\tBecause.\t\tno|yes\n3 hi\tho\n"
    yaml = "acts:\n- - text: Why?\n    labels: [Because.]\n    episode_done: true\n"
    line = '[LINE] Talk\nSaved on: 2026/03/02 10:00\n\nSun, 03/01/2026\n9:00 AM\tMira\thi\n9:01 AM\tAda\t"a\nb"\n'
    kakao = "2026년 3월 1일 오전 9:00, Mira : hi\n2026년 3월 1일 오전 9:01, Ada : ho\n" * 2
    windows = "--------------- 2026년 3월 1일 일요일 ---------------\n[Mira] [오전 9:00] hi\n[Ada] [오후 1:01] ho\n"
    character = "Oda: Mind the step.\nGuest: I will.\n\nOda: Good.\n"
    return [
        Seed(table.getvalue().encode(), "text", "talk.csv"),
        Seed(b"question\tanswer\nWhy?\tBecause.\n", "text", "pairs.tsv"),
        Seed(b"prompt,response\nWhy?,Because.\n", "text", "rows.csv"),
        Seed(b'quote,character\n"Mind, the step.",Oda\n', "text", "q.csv"),
        Seed(b"Date,User,Message\n2026-03-01 09:00:00,Mira,hi\n2026-03-01 09:01:00,Ada,ho\n", "text", "kakao.csv"),
        Seed(b"01/03/2026,09:00,Mira,hi\n01/03/2026,09:01,Ada,ho\n01/03/2026,09:02,Mira,so\n", "text", "viber.csv"),
        *(Seed(text.encode(), "text", "chat.txt") for text in (line, kakao, f"KakaoTalk Chats\n{windows}")),
        *(Seed(text.encode(), "text", "_chat.txt") for text in whatsapp),
        Seed(personachat.encode(), "text", "train.txt"),
        Seed(yaml.encode(), "text", "acts.yml"), Seed(character.encode(), "text", "lines.txt"),
        Seed(b"# Oda\n\n**Guest:** hi\n\n**Oda:** ho\n", "text", "oda.md"),
    ]  # fmt: skip


def zipped(files: dict[str, Any]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(
                name, content if isinstance(content, str | bytes) else json.dumps(content)
            )
    return made.getvalue()


def zipped_exports() -> list[Seed]:
    day = {"general/2026-03-01.json": [logs.slack("hi"), logs.slack("ho", "U2", 1)]}
    chat = {
        "WhatsApp "
        "Chat/_chat.txt": "[15.01.24, 10:30:12] Mira: hi\n[15.01.24, 10:31:12] Ada Lace: ho\n"
    }
    inbox = {
        "inbox/a_1/message_1.json": logs.talk(logs.instagram("hi"), logs.instagram("ho", "Ada", 1))
    }
    packages = (logs.OLD_PACKAGE, logs.NEW_PACKAGE, logs.WORKSPACE | day, chat, inbox)
    return [Seed(zipped(files), "zip", "export.zip") for files in packages]


def read_dataset_catalogue(file: Path, out: Path) -> None:
    for fault in read_catalogue(file.parent).faults.values():
        raise MaterialError(fault, "")


def catalogues() -> list[Seed]:
    stated = 'right = "own-writing"\nstated_by = "Mina Vale"\nstated_on = 2026-11-20\nwhy = "I wrote it."\n'
    text = (
        f'[quay]\npath = "talk.jsonl"\nlanguage = "en"\npersona_names = ["Wick"]\n{stated}\n'
        f'[far]\nhub = "harbour/talk"\nfiles = ["a.jsonl"]\n{stated}'
    ).encode()
    return [Seed(text, "text", CATALOGUE_FILE)]


# ----------------------------------------------------------------------------- backups and adapters


def read_backup(file: Path, out: Path) -> None:
    with open_archive(file) as archive:
        archive.verify(lambda _: None)
        archive.extract(out, lambda _: None)


def backups() -> list[Seed]:
    made = io.BytesIO()
    members = {
        "catalogue.toml": b"[a]", "personas/77/mira/card.toml": b'name = "Mira"', "lore/77/mira/soup.md": b"# Soup",
        "understudy.sqlite": b"SQLite format 3\0" + bytes(200), "heldout/oda.bin": bytes(64),
    }  # fmt: skip
    with zipfile.ZipFile(made, "w") as archive:
        writer = ArchiveWriter(archive, lambda _: None)
        for name, content in members.items():
            writer.add(name, io.BytesIO(content))
        writer.seal("2026-11-20T10:00:00+00:00", "0.1.0", FIRST_VERSION)
    return [Seed(made.getvalue(), "zip")]


def reseal_backup(members: dict[str, bytes]) -> None:
    """State the members' new names, sizes and checksums in the manifest, as whoever makes one up
    would.
    """
    manifest = json.loads(members[MANIFEST_NAME])
    others = {name: content for name, content in members.items() if name != MANIFEST_NAME}
    stated = {
        name: {"sha256": hashlib.sha256(it).hexdigest(), "bytes": len(it)}
        for name, it in others.items()
    }
    members[MANIFEST_NAME] = json.dumps({**manifest, "members": stated}).encode()


def reseal_adapter(members: dict[str, bytes]) -> None:
    manifest = json.loads(members[MANIFEST_FILE])
    sums = {
        name: hashlib.sha256(it).hexdigest()
        for name, it in members.items()
        if name != MANIFEST_FILE
    }
    members[MANIFEST_FILE] = json.dumps({**manifest, "checksums": sums}).encode()


def reseal_card(members: dict[str, bytes]) -> None:
    """State the names and checksums of the adapter in a card, whatever they are now."""
    prefix = ADAPTER_URI_PREFIX.removeprefix(charx.ASSET_SCHEME)
    adapter = {
        name.removeprefix(prefix): content
        for name, content in members.items()
        if name.startswith(prefix)
    }
    reseal_adapter(adapter)
    members[prefix + MANIFEST_FILE] = adapter[MANIFEST_FILE]


def change_sealed(
    reseal: Callable[[dict[str, bytes]], None],
    rng: random.Random,
    seed: Seed,
    others: Sequence[bytes],
) -> bytes:
    """Change a zip with checksums inside, which mostly fit again."""
    try:
        return (
            change_zip(rng, seed.content, reseal)
            if rng.random() < 0.7
            else mutate(rng, seed.content, "zip", others)
        )
    except (
        ValueError,
        TypeError,
        KeyError,
        RecursionError,
    ):  # what was to be sealed again is no manifest any more
        return mutate(rng, seed.content, "", others)


@cache
def adapter_files() -> dict[str, bytes]:
    """A small adapter as `trainer` writes it, over `LAYERS`."""
    sides = {"lora_A": (4, 8), "lora_B": (8, 4)}
    shapes = {
        f"base_model.model.{name}.{side}.weight": shape
        for name in LAYERS
        for side, shape in sides.items()
    }
    header = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [n * 128, n * 128 + 128]}
        for n, (name, shape) in enumerate(shapes.items())
    }
    head = json.dumps(header).encode()
    config = {
        "peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "bias": "none",
        "rank_pattern": {}, "alpha_pattern": {}, "use_dora": False, "base_model_name_or_path": "embedded",
        "task_type": "CAUSAL_LM", "lora_dropout": 0.05, "init_lora_weights": True, "inference_mode": True,
    }  # fmt: skip
    files = {
        CONFIG_FILE: json.dumps(config).encode(),
        WEIGHTS_FILE: len(head).to_bytes(8, "little") + head + bytes(128 * len(shapes)),
    }
    manifest = external_adapter._new_manifest(
        external_adapter.AdapterSource(name="x"), the_base(), BASE_HASH, config, ()
    )
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return {
        **files,
        MANIFEST_FILE: manifest.model_copy(update={"checksums": sums}).model_dump_json().encode(),
    }


@cache
def the_base() -> Any:
    return SimpleNamespace(
        name="embedded", repository="embedded", revision="", folder=ROOT, template="own"
    )


def adapters() -> list[Seed]:
    load_torch()  # while no clock runs: an import that is broken off cannot be repeated
    files = adapter_files()
    outside = {name: content for name, content in files.items() if name != MANIFEST_FILE}
    return [
        Seed(zipped(files), "zip", "a.zip"),
        Seed(zipped({f"mira/{n}": it for n, it in outside.items()}), "zip", "a.zip"),
    ]


def read_adapter(file: Path, out: Path) -> None:
    """Unpack and seal an adapter as an import does, over a base model whose layers are known
    already.
    """
    known = {
        "locate": lambda _: the_base(), "fingerprint": lambda _: BASE_HASH, "base_linear_shapes": lambda _: LAYERS,
        "default_template": lambda _: "own",
    }  # fmt: skip
    before = {name: getattr(external_adapter, name) for name in known}
    vars(external_adapter).update(known)
    try:
        external_adapter.import_adapter(str(file), out / "adapter", "embedded", lambda _: None)
    finally:
        vars(external_adapter).update(before)


# -------------------------------------------------------------------------------------- job folders


@cache
def job_material() -> tuple[str, dict[str, bytes]]:
    """A job's request, and its material by name."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = persona_job(Path(scratch), "embedded")
        files = [path for path in (folder / "material").rglob("*") if path.is_file()]
        material = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
        return (folder / REQUEST_FILE).read_text(encoding="utf-8"), material


def job_requests() -> list[Seed]:
    return [Seed(job_material()[0].encode(), "json")]


def change_request(rng: random.Random, seed: Seed, others: Sequence[bytes]) -> bytes:
    """Give a material a hostile name, or change the request in any other way."""
    if rng.random() < 0.5:
        return mutate(rng, seed.content, "json", others)
    document = json.loads(seed.content)
    rng.choice(document["materials"])["path"] = rng.choice(HOSTILE_NAMES)
    return json.dumps(document).encode()


def read_job_request(file: Path, out: Path) -> None:
    """Read a job folder whose request came from elsewhere, as the trainer does."""
    for name, content in job_material()[1].items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    (out / REQUEST_FILE).write_bytes(file.read_bytes())
    inputs = read_job_inputs(out, read_spec(out))
    assert inputs.persona is None or inputs.persona.id


# --------------------------------------------------------------------------------------------- REST


class CachedRequest(dict[Any, Any]):
    """A request whose body has been read."""

    def __init__(self, body: bytes, content_type: str = "application/json") -> None:
        super().__init__({CACHED_BODY: body})
        self.content_type = content_type
        self.headers = {"Content-Type": content_type}


@cache
def json_bodies() -> list[tuple[Any, Any]]:
    """Model and example of each route's JSON body, one each."""
    specs = [
        spec.body for _, _, handler in ROUTES if (spec := operation_spec(handler)) and spec.body
    ]
    return list(
        {
            spec.shape: (spec.shape, spec.example) for spec in specs if isinstance(spec.shape, type)
        }.values()
    )


def read_rest_body(file: Path, out: Path) -> None:
    """Read a JSON body as each route does."""
    body = finish(read_json_object(CachedRequest(file.read_bytes()), 2**20))  # type: ignore[arg-type]
    refused: list[Problem] = []
    for model, _ in json_bodies():
        try:
            if model is ChatCompletionBody:
                parse_chat(parse_chat_body(body), "oda", 2048)
            else:
                parse_body(model, body)
        except Problem as problem:
            assert problem.message and 400 <= problem.status < 500
            refused.append(problem)
    if len(refused) == len(json_bodies()):
        raise refused[0]


def rest_bodies() -> list[Seed]:
    hyper = {
        "job_name": "oda-1",
        "persona": "oda",
        "recipe": "demo-cpu",
        "hyperparameters": {"learning_rate": 1e-4, "lora_r": 8},
    }
    return [
        Seed(json.dumps(it).encode(), "json")
        for it in [hyper, *(example for _, example in json_bodies() if example)]
    ]


def read_page_form(file: Path, out: Path) -> None:
    form = finish(read_form(CachedRequest(file.read_bytes(), FORM_TYPE)))  # type: ignore[arg-type]
    for parse in (partial(parse_build_form, chosen=["logs/oda"]), parse_offer_form):
        try:
            parse(form)
        except Problem as problem:
            refused = problem
        else:
            return
    raise refused


def page_forms() -> list[Seed]:
    build = {
        "name": "talk",
        "persona": "oda",
        "names": "Oda, Wick",
        "languages": "en",
        "limit logs/oda": "50",
    }
    stated = {
        "right": "licensed",
        "licence": "CC-BY-4.0",
        "stated_by": "Mina",
        "stated_on": "2026-11-20",
    }
    fields = ({**build, "mix": "0.3"}, {"name": "quay", "language": "en", **stated})
    return [Seed(urlencode(one).encode(), "text") for one in fields]


@cache
def event_loop() -> asyncio.AbstractEventLoop:
    """A loop for the time-outs of what reads a body; the body is there already."""
    return asyncio.new_event_loop()


def read_upload(file: Path, out: Path) -> None:
    """Read a multipart form with a file."""
    payload = StreamReader(PROTOCOL, 2**16, loop=LOOP)
    payload.feed_data(file.read_bytes())
    payload.feed_eof()
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    event_loop().run_until_complete(
        read_file_form(make_mocked_request("POST", "/", headers=headers, payload=payload), 2**20)
    )


PROTOCOL: Any = SimpleNamespace(
    _reading_paused=False,
    connected=True,
    resume_reading=lambda **_: None,
    pause_reading=lambda: None,
)
LOOP: Any = SimpleNamespace(
    get_debug=lambda: False, create_future=lambda: None, call_soon=lambda *_: None
)


def uploads() -> list[Seed]:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="text"\r\n\r\nhi\r\n--{BOUNDARY}\r\n'
    )
    tail = 'Content-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    tail += f"AAAA\r\n--{BOUNDARY}--\r\n"
    return [Seed((head + tail).encode(), "")]


# ----------------------------------------------------------------------------- settings and recipes


def read_settings(file: Path, out: Path) -> None:
    load_settings(file, {"UNDERSTUDY_HOME": str(out)})


def settings_files() -> list[Seed]:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    given = "\n".join(line.removeprefix("# ") for line in example.splitlines() if "=" in line)
    return [
        Seed(example.encode(), "text", ".env"),
        Seed(given.encode(), "text", ".env"),
        Seed(b'A="b\nc"\nWEB_PORT=1\n', "text", ".env"),
    ]


def read_recipe(file: Path, out: Path) -> None:
    fields = finish(read_json_object(CachedRequest(file.read_bytes())))  # type: ignore[arg-type]
    requested_recipe(make_request(**{"recipe": "demo-cpu", **fields}))


def recipes() -> list[Seed]:
    values = {
        "learning_rate": 1e-4,
        "num_train_epochs": 3,
        "lora_r": 8,
        "max_length": 512,
        "seed": 1,
    }
    return [
        Seed(
            json.dumps(
                {"job_name": "x", "task_type": "dialogue", "hyperparameters": values, **more}
            ).encode(),
            "json",
        )
        for more in ({}, {"recipe": "s0-6gb"}, {"recipe": "auto"})
    ]


CARD_ERRORS = (CardError, ExportError, AdapterError)


class NotReadError(Exception):
    """A file that a member sent is neither a text nor a picture that can be shown."""


def sent_files() -> list[Seed]:
    """Pictures of all formats, a moving one too, and a text."""
    seeds = [Seed("Zwei Krebse.\r\nEin Aal – 二.".encode())]
    frames = [Image.new("RGB", (40, 20), colour) for colour in ("red", "blue")]
    for form in FORMATS:
        written = io.BytesIO()
        frames[0].save(written, form, save_all=form == "GIF", append_images=frames[1:])
        seeds.append(Seed(written.getvalue()))
    return seeds


def read_sent_file(file: Path, out: Path) -> None:
    """Read what a member sent, as for a model that sees."""
    data = file.read_bytes()
    read_limit(data[:HEAD_BYTES], sees_pictures=True)
    found = read_file("it", len(data), data, sees_pictures=True)
    quoted_file(found, 100, len)
    if not (found.text or found.picture):
        raise NotReadError("It is neither a text nor a picture that can be shown.")


PARSERS: tuple[Parser, ...] = (
    Parser("card JSON", named_cards, read_card, CARD_ERRORS, 6),
    Parser("card PNG", png_cards, read_card, CARD_ERRORS, 8),
    Parser(
        "card CHARX", charx_cards, read_card, CARD_ERRORS, 5, partial(change_sealed, reseal_card)
    ),
    Parser("card TOML", toml_cards, read_card, CARD_ERRORS, 5),
    Parser("lore markdown", lore, read_lore, (LoreError,), 3),
    Parser("lorebook", lorebooks, read_lorebook_file, (LoreError,), 4),
    Parser("card draft from markdown", lore, read_draft, (LoreError, CardError), 2),
    Parser("chat exports and rows, JSON", json_exports, read_records, (MaterialError,), 6),
    Parser("chat exports and tables, text", text_exports, read_records, (MaterialError,), 4),
    Parser("chat exports, zip", zipped_exports, read_records, (MaterialError,), 3),
    Parser("dataset catalogue", catalogues, read_dataset_catalogue, (MaterialError,), 5),
    Parser(
        "backup", backups, read_backup, (BackupError,), 6, partial(change_sealed, reseal_backup)
    ),
    Parser(
        "job folder",
        job_requests,
        read_job_request,
        (MaterialError, RequestError),
        3,
        change_request,
    ),
    Parser(
        "adapter",
        adapters,
        read_adapter,
        (AdapterError,),
        6,
        partial(change_sealed, reseal_adapter),
    ),
    Parser("REST body", rest_bodies, read_rest_body, (Problem,), 10),
    Parser("page form", page_forms, read_page_form, (Problem,), 8),
    Parser("file upload", uploads, read_upload, (Problem,), 5),
    Parser(".env", settings_files, read_settings, (SettingsError,), 4),
    Parser("sent file", sent_files, read_sent_file, (NotReadError,), 5),
    *ANSWER_PARSERS,
    Parser("recipe and hyperparameters", recipes, read_recipe, (RequestError, Problem), 10),
)
