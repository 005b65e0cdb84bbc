"""Recognises what names somebody in the address of a web page: a user in the path, or a host."""

import re
from collections.abc import Iterator

from trainer.anonymise.crf_ner.gazetteer import load_gazetteer
from trainer.anonymise.language_data import text_before
from trainer.anonymise.spans import RANK_PATTERN, EntitySpan

ADDRESS = re.compile(
    r"(?<![A-Za-z0-9@._-])(?:https?://)?(?:www\.)?(?P<host>(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Z"
    r"a-z0-9])?\.){1,3})"
    r"(?P<top>[A-Za-z]{2,24})(?![A-Za-z0-9@.-])(?P<path>/[A-Za-z0-9_.~@%/+-]*)?"
)
USER_PATH = re.compile(
    r"/(?:(?:u|user|users|in|profiles?|people|members?|author|id|add|channel|c|artist|player)/@?|"
    r"@|~|~)"
    r"(?P<name>[A-Za-z0-9_.-]{2,40}?)(?=[./]?$|/)",
    re.IGNORECASE,
)
OWNED = re.compile(
    r"(?:(?<![a-z])(?:my|his|her|their|personal|own|meine?|mon|ma|mi|il mio|mijn|min|moja|meu|"
    r"minha)\s(?:\w{1,12}\s)?"
    r"(?:site|web ?site|web ?page|home ?page|page|blog|portfolio|shop|store|webseite|seite|"
    r"homepage|página|sito|side|strona)|"
    r"(?:^|[\n|•·,;-]\s{0,2})(?:web(?:site)?|site|blog|portfolio|home ?page|www|url|homepage|"
    r"página|sito(?: web)?))"
    r"(?:\s(?:is|at|here|ist|est|es|è|er))?\s?[:=-]?\s{0,3}$"
)
"""Text before the address of somebody's own page."""
FILE_ENDINGS = frozenset(
    "py js ts md txt json yml yaml toml exe zip png jpg jpeg gif pdf csv html htm sh cfg ini log "
    "mp4 rs go java cpp css vue".split()
)


def find_personal_pages(text: str) -> Iterator[EntitySpan]:
    """Find `HANDLE`: `/in/name` and `/~name` on any host, and hosts called "my site" or a name."""
    if "." not in text:
        return
    for match in ADDRESS.finditer(text):
        if match["top"].lower() in FILE_ENDINGS:
            continue
        user = USER_PATH.match(match["path"] or "")
        if user:
            start = match.start("path")
            yield EntitySpan(
                "HANDLE", start + user.start("name"), start + user.end("name"), RANK_PATTERN
            )
        elif _is_name(match["host"]) or _is_owned(text, match):
            yield EntitySpan("HANDLE", match.start("host"), match.end("host") - 1, RANK_PATTERN)


def _is_owned(text: str, match: re.Match[str]) -> bool:
    is_whole_site = (match["path"] or "/") == "/"
    return is_whole_site and OWNED.search(text_before(text, match.start(), 40)) is not None


def _is_name(host: str) -> bool:
    """Return True for a given and a family name, joined or with a hyphen: `ann-lee.`, `annlee.`"""
    label = host.rstrip(".").rsplit(".", 1)[-1].lower()
    groups_of = load_gazetteer().of
    if groups_of(label):
        return False
    if "-" in label:
        given, _, family = label.partition("-")
        return "g" in groups_of(given) and "f" in groups_of(family)
    for cut in range(3, len(label) - 2):
        if "g" in groups_of(label[:cut]) and "f" in groups_of(label[cut:]):
            return True
    return False
