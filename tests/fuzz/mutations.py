"""Damaged and hostile variants of real inputs, made by seed: of bytes, and of what JSON, PNG and
zip files hold.
"""

from __future__ import annotations

import base64
import io
import json
import random
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

PLACEHOLDERS = {
    "@deep@": "[" * 3_000 + "]" * 3_000,
    "@deep-object@": '{"a":' * 2_000 + "1" + "}" * 2_000,
    "@unclosed@": "[" * 100_000,
    "@digits@": "9" * 5_000,
    "@huge@": "1e999",
    "@nan@": "NaN",
    "@infinity@": "-Infinity",
    "@surrogate@": '"\\ud800"',
    "@pair@": '"\\ud83d\\ude00"',
}
"""Values that `json.dumps` does not write; they replace these texts afterwards."""
TEXTS = (
    "", " ", "\0", "\ufeff", "\u202e", "e\u0301" * 40, "ﷺ" * 50, "𝕬", "\x1b[31m", "\r\n", "..", "../../etc/passwd",
    "C:\\x", "con.png", "a" * 300, "a" * 20_000, "{{char}}" * 50, "{{user", "<START>", "@everyone", "%s%n", "${HOME}",
    "{0.__class__}", "data:image/png;base64,AAAA", "data:;base64,%", "embeded://../../x",
    "http://[::1", "http://a:99999",
    "hf://../x@y",
    "2026-02-30T25:61:61Z", "0000-00-00", "9999-12-31T23:59:59+99:99", "1e5", "9" * 5_000, "[" * 3_000,
    "-0", "0x10", "１２",
    "true", "null",
    "2026-01-01", "- [ ]", "---\na: b\n---\n", "!!python/object:os.system", "*a", "&a [*a]", "'", '"', "```",
    "|a|b|\n|-|-|",
)  # fmt: skip
HOSTILE_NAMES = (
    "/", "//", "/tmp/out", "//tmp/out", "../out", "a/../../out", "a//tmp/out", "./out", "..", "C:/out", "C:out",
    "\\\\host\\share\\out", "..\\out", "con", "NUL.json", "aux/out", "out.", "out ", "a\u202eb", "e\u0301", "é",
    "\ufeffout", "．．／out", "ﬁle", "a" * 300, "a/" * 200 + "a", "~/out", "$HOME/out", "-rf", "\x1b[31m", "out\n",
)  # fmt: skip
"""Names of files that lead elsewhere, on this system or another, or are two names of one file."""
NUMBERS = (
    0,
    -1,
    1,
    2**31,
    -(2**31),
    2**53 + 1,
    2**63,
    -(2**63) - 1,
    10**30,
    1.5,
    -0.0,
    1e308,
    5e-324,
    253402300800,
)
TOKENS = (
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\r", b"\n", b"\n\n",
    b'"', b"'", b",", b";",
    b"{", b"}", b"[", b"]", b"<", b"&", b"*", b"&a ", b"*a", b"---\n", b"===", b"#", b"`", b"|", b"\\", 
    b"\\u0000", b"\\ud800", b"${A}",
    b"PK\x03\x04", b"PK\x05\x06", b"\x89PNG\r\n\x1a\n", b"\x1f\x8b", b"PAR1", b"1e999", b"NaN", b"-1",
    b"999999999999999999999",
    b"<START>", b"{{user}}", b"[2026-13-45, 99:99:99] A: ", b"0", b" " * 2_000, b"(" * 500, b"[" * 500, b"> " * 300,
    b"a," * 500,
)  # fmt: skip
MAX_BYTES = 2**19
Change = Callable[[random.Random, bytes], bytes]


def mutate(rng: random.Random, seed: bytes, kind: str, others: Sequence[bytes]) -> bytes:
    """Return a variant of a seed of this kind; `others` are the parser's other seeds, to splice
    with.
    """
    structured = KINDS.get(kind)
    if structured is None or rng.random() < 0.25:
        return change_bytes(rng, seed, others)
    try:
        data = structured(rng, seed)
    except (ValueError, KeyError, IndexError, RecursionError, zipfile.BadZipFile, struct.error):
        return change_bytes(rng, seed, others)  # the seed is not of the kind
    return change_bytes(rng, data, others) if rng.random() < 0.15 else data[:MAX_BYTES]


# -------------------------------------------------------------------------------------------- bytes


def change_bytes(rng: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at, end = sorted((rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)))
        match rng.randrange(9):
            case 0 if content:
                content[at % len(content)] = rng.randrange(256)
            case 1 if content:
                content[at % len(content)] ^= 1 << rng.randrange(8)
            case 2:
                content[at:at] = rng.choice(TOKENS)
            case 3:
                del content[at : min(end, at + rng.choice((1, 4, 64, 10_000)))]
            case 4:
                content[at:at] = content[at : min(end, at + 256)] * rng.choice((1, 2, 30))
            case 5:
                content[at : at + 4] = struct.pack(
                    rng.choice("<>") + "I", rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**16))
                )
            case 6 if others:
                other = rng.choice(others)
                content[at:] = other[rng.randrange(len(other) + 1) :]
            case 7:
                content[at:end] = rng.choice(TOKENS)
            case _:
                del content[at if rng.random() < 0.3 else len(content) :]
    return bytes(content[:MAX_BYTES])


def change_text(rng: random.Random, data: bytes) -> bytes:
    """Move, repeat and drop lines, or put a hostile text in place of a word."""
    lines = data.decode().split("\n")
    for _ in range(rng.choice((1, 2, 4))):
        at = rng.randrange(len(lines))
        match rng.randrange(5):
            case 0:
                lines[at:at] = [rng.choice(lines)] * rng.choice((1, 3, 50))
            case 1:
                lines[at] = rng.choice(TEXTS)
            case 2 if len(lines) > 1:
                del lines[at]
            case 3:
                lines[at] = (
                    rng.choice(("#", "> ", "- ", "    ", "| ", "\t", "1. "))
                    * rng.choice((1, 7, 60))
                    + lines[at]
                )
            case _:
                words = lines[at].split(" ")
                words[rng.randrange(len(words))] = rng.choice(TEXTS)
                lines[at] = " ".join(words)
    return "\n".join(lines).encode()


# --------------------------------------------------------------------------------------------- JSON


def change_json(rng: random.Random, data: bytes) -> bytes:
    document = json.loads(data)
    holder = {"": document}
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change_value(rng, holder)
    text = json.dumps(
        holder[""], ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, None, 1))
    )
    for name, written in PLACEHOLDERS.items():
        text = text.replace(f'"{name}"', written)
    return text.encode("utf-8", "surrogatepass")


def change_json_lines(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 3))):
        at = rng.randrange(len(lines))
        lines[at] = change_json(rng, lines[at] or b"null")
    return b"\n".join(lines)


def _change_value(rng: random.Random, holder: dict[str, Any]) -> None:
    """Change one value of a document in place, chosen among all."""
    where: list[tuple[Any, Any]] = []
    stack: list[Any] = [holder]
    while stack:
        one = stack.pop()
        inner = one.items() if isinstance(one, dict) else enumerate(one)
        for key, value in inner:
            where.append((one, key))
            if isinstance(value, dict | list):
                stack.append(value)
    parent, key = rng.choice(where)
    match rng.randrange(7):
        case 0 if parent is not holder and isinstance(parent, dict):
            del parent[key]
        case 1 if parent is not holder and isinstance(parent, dict):
            parent[rng.choice(TEXTS) if rng.random() < 0.5 else str(key).upper()] = parent.pop(key)
        case 2:
            parent[key] = [parent[key]] * rng.choice((1, 2, 40))
        case 3:
            other, name = rng.choice(where[1:] or where)
            parent[key] = (
                json.loads(json.dumps(other[name]))
                if name in other or isinstance(other, list)
                else None
            )
        case 4 if isinstance(parent[key], str):
            text = parent[key]
            at = rng.randrange(len(text) + 1)
            parent[key] = text[:at] + rng.choice(TEXTS) + text[at:]
        case 5 if isinstance(parent, list):
            del parent[key]
        case _:
            parent[key] = rng.choice(
                (
                    None,
                    True,
                    False,
                    [],
                    {},
                    [[]],
                    rng.choice(NUMBERS),
                    rng.choice(TEXTS),
                    *PLACEHOLDERS,
                )
            )


# --------------------------------------------------------------------------------------- containers


def change_png(rng: random.Random, data: bytes) -> bytes:
    """Change a chunk, or the card in its text, and give every chunk a fitting checksum."""
    chunks = []
    at = 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += size + 12
    index = rng.randrange(len(chunks))
    kind, content = chunks[index]
    keyword, separator, text = content.partition(b"\0")
    match rng.randrange(6):
        case 0 | 1 if kind == b"tEXt":
            content = (
                keyword + separator + base64.b64encode(change_json(rng, base64.b64decode(text)))
            )
        case 2 if kind == b"tEXt":
            packed = zlib.compress(text) if rng.random() < 0.7 else zlib.compress(bytes(2**22))
            kind, content = rng.choice(
                ((b"zTXt", keyword + b"\0\0" + packed), (b"iTXt", keyword + b"\0\1\0\0\0" + packed))
            )
        case 3:
            kind = rng.choice(
                (b"IHDR", b"IDAT", b"tEXt", b"zTXt", b"iTXt", b"IEND", b"\0\0\0\0", b"abcd")
            )
        case 4:
            chunks[index:index] = [chunks[index]] * rng.choice((1, 2, 50))
        case _:
            content = change_bytes(rng, content)
    chunks[index] = (kind, content)
    parts = (
        len(it).to_bytes(4) + name + it + zlib.crc32(name + it).to_bytes(4) for name, it in chunks
    )
    return data[:8] + b"".join(parts)


def change_safetensors(rng: random.Random, data: bytes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size]
    numbers = data[8 + size :]
    if rng.random() < 0.7:
        header = change_json(rng, header)
    else:
        numbers = change_bytes(rng, numbers)
    return len(header).to_bytes(8, "little") + header + numbers


def hostile_name(rng: random.Random, name: str) -> str:
    """Return a hostile name: its own, or one in place of a part of this name."""
    parts = name.split("/")
    parts[rng.randrange(len(parts))] = rng.choice((*HOSTILE_NAMES, *TEXTS[:20]))
    whole = (
        f"../{name}",
        f"/{name}",
        f"{name}/",
        name.upper(),
        name.replace("/", "//"),
        *HOSTILE_NAMES,
    )
    return rng.choice(("/".join(parts), rng.choice(whole)))


def change_zip(
    rng: random.Random, data: bytes, reseal: Callable[[dict[str, bytes]], None] | None = None
) -> bytes:
    """Change one member by its kind, its name or its entry; `reseal` corrects checksums among the
    members.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = rng.choice(sorted(members))
    doubled = rng.random() < 0.03
    link = rng.random() < 0.03
    new_name = rng.random() < 0.1
    if not new_name:
        kind = SUFFIX_KINDS.get(name.rpartition(".")[2])
        members[name] = mutate(rng, members[name], kind or "", list(members.values()))
    else:
        members[hostile_name(rng, name)] = members.pop(name)
    if reseal and rng.random() < 0.7:
        reseal(members)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        for member, content in [
            *members.items(),
            *([("x" if doubled else name, b"")] if doubled else []),
        ]:
            info = zipfile.ZipInfo(member.replace("\0", "") or "x")
            if link and member == name:
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, content, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    return packed.getvalue()


KINDS: dict[str, Change] = {
    "json": change_json,
    "lines": change_json_lines,
    "text": change_text,
    "png": change_png,
    "zip": change_zip,
    "safetensors": change_safetensors,
}
SUFFIX_KINDS = {
    "json": "json", "jsonl": "lines", "png": "png", "safetensors": "safetensors", "csv": "text",
    "md": "text", "txt": "text",
    "toml": "text",
}  # fmt: skip
