"""Recognises e-mail and IP addresses, handles, profile links, and Discord mentions and ids."""

import ipaddress
import re
from collections.abc import Iterator, Sequence

from trainer.anonymise.language_data import CJK, LATIN, WORD_START, text_before
from trainer.anonymise.spans import RANK_HANDLE, RANK_PATTERN, EntitySpan

LETTERS = rf"{LATIN}\u0370-\u0dff\u10a0-\u167f\u1f00-\u1fff"
"""Letters of alphabets with spaces between words: Greek, Cyrillic, Hebrew, Arabic, Indic, Ethiopic."""
LOCAL = rf"[{LETTERS}0-9_](?:[{LETTERS}0-9._%+'-]{{0,63}}[{LETTERS}0-9_+-])?"
EMAIL = re.compile(
    rf"(?<![{LETTERS}0-9._%+-]){LOCAL}@(?:[{LETTERS}0-9](?:[{LETTERS}0-9-]{{0,61}}[{LETTERS}0-9])?\.)+"
    rf"(?:[{LETTERS}]{{2,24}}|[Xx][Nn]--[A-Za-z0-9-]{{2,59}})(?![A-Za-z0-9])"
)
OBFUSCATED_EMAIL = re.compile(
    rf"{WORD_START}[A-Za-z0-9][A-Za-z0-9._%+-]{{0,63}}\s?[\[(]\s?(?:at|@)\s?[\])]\s?[A-Za-z0-9-]+"
    r"(?:\s?[\[(]\s?(?:dot|\.)\s?[\])]\s?[A-Za-z0-9-]+|\.[A-Za-z0-9-]+)+",
    re.IGNORECASE,
)
OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
IPV4 = re.compile(
    rf"(?<![0-9.vVrR])(?<![A-Za-z]/){OCTET}(?:\.{OCTET}){{3}}(?![0-9]|[.-][A-Za-z0-9]|(?:a|b|rc|alpha|beta|dev|post)[0-9])"
)
IPV6 = re.compile(
    r"(?<![A-Za-z0-9])(?:(?=[0-9A-Fa-f]{0,4}:)[0-9A-Fa-f:]{3,39}(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3})?)(?![A-Za-z0-9])"
)
ANY_IP = re.compile(r"[0-9]\.[0-9]|:[0-9A-Fa-f]*:")
VERSION_CUE = re.compile(
    r"(?:version|ver\.?|build|release|firmware|driver|patch|section|chapter|phiên bản|bản|版本[号號]?|バージョン)"
    r"[ :=#：]{0,3}$"
)
IP_CUE = re.compile(
    r"ip|address|server|host|dns|ping|gateway|router|proxy|địa chỉ|máy chủ|地址|服务器|アドレス|サーバ"
)
HANDLE = re.compile(
    rf"(?<![A-Za-z0-9_.@/+-])@(?:(?P<name>[{LATIN}0-9_](?:[{LATIN}0-9_.-]{{0,30}}[{LATIN}0-9_])?)(?![{LATIN}0-9_@/])|"
    rf"(?P<cjk>[{CJK}][{CJK}A-Za-z0-9_]{{1,15}})(?=[\s:,.!?。]|$))"
)
GENERIC_MENTIONS = frozenset(
    """everyone here someone channel all property staticmethod classmethod dataclass override media import param return
    returns author deprecated test component injectable""".split()
)
GENERIC_MENTIONS_CJK = ("所有人", "全体成员", "全體成員", "全員", "みんな", "모두")
TIME_OF_DAY = re.compile(r"[0-9]{1,4}(?:am|pm|h|ft|hp|x)?", re.IGNORECASE)
PROFILE = re.compile(
    r"(?<![A-Za-z0-9.-])(?:www\.|m\.)?(?:t\.me|telegram\.me|instagram\.com|twitter\.com|x\.com|tiktok\.com|facebook\.com|"
    r"fb\.com|vk\.com|linkedin\.com/in|github\.com|gitlab\.com|reddit\.com/u(?:ser)?|twitch\.tv|threads\.net|zalo\.me|"
    r"steamcommunity\.com/(?:id|profiles)|youtube\.com(?=/@)|m\.me|wa\.me|line\.me/ti/p|weibo\.com|discord\.com/users)"
    r"/@?(?P<name>[A-Za-z0-9_.~+-]{2,64})(?P<more>/[A-Za-z0-9_-])?",
    re.IGNORECASE,
)
NON_PROFILE_PATHS = frozenset(
    """p reel reels watch search hashtag intent share login signup explore status about help settings home joinchat s c
    features pricing orgs topics marketplace groups events pages tos privacy download i""".split()
)
PLATFORM = re.compile(
    r"(?<![A-Za-z])(?P<platform>insta(?:gram)?|ig|twitter|telegram|tiktok|snap(?:chat)?|discord|steam|line|zalo|wechat|weixin|qq|skype|"
    r"psn|xbox|gamertag|battle\.?net|roblox|minecraft|reddit|twitch|facebook|fb|kik|signal|微信|微博|抖音|ツイッター|ライン|"
    r"インスタ)(?P<word>\s?(?:id|handle|user ?name|name|tag|account|nick|号|账号|アカウント))?"
    r"\s{0,2}(?P<sign>[:=]|(?<![A-Za-z])is|là|是|は)"
    r"\s{0,2}(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]{1,30}[A-Za-z0-9_])(?![A-Za-z0-9_/@])",
    re.IGNORECASE,
)
CHINESE_CONTACT = re.compile(
    r"(?<![A-Za-z])(?:(?:微信号?|微信號|(?i:wechat|weixin|wx|vx)号?)[：:\s是]{0,3}(?P<name>[A-Za-z][A-Za-z0-9_-]{5,19})|"
    r"(?i:qq)(?:号码?|號碼?)?[：:\s是]{0,3}(?P<digits>[1-9][0-9]{4,10}))(?![A-Za-z0-9_@])"
)
"""WeChat names have 6 to 20 letters, QQ names are numbers; no separator is needed after Chinese
characters.
"""
AMBIGUOUS_PLATFORMS = frozenset(
    "line steam signal discord xbox minecraft roblox reddit twitch facebook signal".split()
)
"""Platforms that are also topics: `Steam: broken again`."""
DISCRIMINATOR_TAG = re.compile(
    rf"(?<![{LATIN}0-9_.#/])(?P<word>[{LATIN}_][{LATIN}0-9_.]{{1,31}})#[0-9]{{4}}(?![A-Za-z0-9])"
)
NON_TAG_WORDS = frozenset(
    """issue issues pr pull bug ticket order room no nr item case task commit page chapter episode apt unit suite card
    number story job request invoice lot box gate bus line route channel build patch colour color part
    section""".split()
)
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
DECORATOR = re.compile(
    r"^[ \t]*@[A-Za-z0-9_.]+(?:\(.*\))?\n\s*(?:async |@|def |class |public |private )", re.MULTILINE
)
MENTION = re.compile(r"<(?P<sign>@[!&]?|#)(?P<id>[0-9]{1,20})>")
SNOWFLAKE = re.compile(r"(?<![0-9_])(?<![0-9][.,])[0-9]{17,20}(?![0-9]|[.,][0-9])")
EMOJI_BEFORE = re.compile(r"<a?:[A-Za-z0-9_]{1,40}:$|/emojis/$")
MIN_SNOWFLAKE = 1 << 22
MAX_SNOWFLAKE = (2040 - 2015) * 366 * 86_400_000 << 22
"""Range of Discord ids: milliseconds since 2015 above their 22 lowest bits."""


def find_emails(text: str) -> Iterator[EntitySpan]:
    """Find `EMAIL_ADDRESS`, written or spelt out: `ann (at) example (dot) com`."""
    if "@" in text:
        for match in EMAIL.finditer(text):
            yield EntitySpan.of_match("EMAIL_ADDRESS", match, RANK_PATTERN)
    if "(" in text or "[" in text:
        for match in OBFUSCATED_EMAIL.finditer(text):
            yield EntitySpan.of_match("EMAIL_ADDRESS", match, RANK_PATTERN)


def find_ip_addresses(text: str) -> Iterator[EntitySpan]:
    """Find `IP_ADDRESS`, v4 and v6, without unspecific addresses (loopback, any) and version
    numbers.
    """
    if not ANY_IP.search(text):
        return
    for match in IPV4.finditer(text):
        if _is_host(match[0]) and not _is_version(text, match):
            yield EntitySpan.of_match("IP_ADDRESS", match, RANK_PATTERN)
    for match in IPV6.finditer(text):
        written = match[0]
        while written.endswith(":") and not written.endswith("::"):
            written = written[:-1]
        if re.search("[0-9]", written) and written.count(":") >= 2 and _is_host(written):
            yield EntitySpan(
                "IP_ADDRESS", match.start(), match.start() + len(written), RANK_PATTERN
            )


def _is_host(written: str) -> bool:
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


def _is_version(text: str, match: re.Match[str]) -> bool:
    """Return True for a version: labelled as one, or four single digits not called an address."""
    if VERSION_CUE.search(text_before(text, match.start(), 16)):
        return True
    return len(match[0]) == 7 and not IP_CUE.search(text_before(text, match.start(), 40))


def find_code(text: str) -> list[tuple[int, int]]:
    """Find code in a text with an @, in order: between backticks, and decorators."""
    if "@" not in text:
        return []
    found: list[tuple[int, int]] = []
    for form in (CODE, DECORATOR):
        found += [match.span() for match in form.finditer(text)]
    return sorted(found)


def find_handles(text: str, code: Sequence[tuple[int, int]]) -> Iterator[EntitySpan]:
    """Find `HANDLE`: a name after an @ (not in code), after a platform's name, or before #1234."""
    if "@" in text:
        for match in HANDLE.finditer(text):
            if not any(start <= match.start() < end for start, end in code) and _is_somebody(match):
                yield EntitySpan(
                    "HANDLE", match.start(), match.end(match.lastgroup or 0), RANK_HANDLE
                )
    for match in PLATFORM.finditer(text):
        if _is_named(text, match):
            yield EntitySpan.of_match("HANDLE", match, RANK_HANDLE, group="name")
    yield from _chinese_contacts(text)
    if "#" in text:
        for match in DISCRIMINATOR_TAG.finditer(text):
            if match["word"].lower() not in NON_TAG_WORDS:
                yield EntitySpan.of_match("HANDLE", match, RANK_HANDLE)


def _chinese_contacts(text: str) -> Iterator[EntitySpan]:
    for match in CHINESE_CONTACT.finditer(text):
        if match["digits"] or re.search("[0-9_]", match["name"]):
            yield EntitySpan.of_match("HANDLE", match, RANK_HANDLE, group=match.lastgroup or 0)


def find_profiles(text: str) -> Iterator[EntitySpan]:
    """Find `HANDLE` in the URL of a profile page."""
    if "/" in text:
        for match in PROFILE.finditer(text):
            is_project = match["more"] and match[0].lower().startswith(("github", "gitlab"))
            if match["name"].lower() not in NON_PROFILE_PATHS and not is_project:
                end = match.start("name") + len(match["name"].rstrip("."))
                yield EntitySpan("HANDLE", match.start("name"), end, RANK_PATTERN)


def _is_somebody(match: re.Match[str]) -> bool:
    name = match["name"] or match["cjk"]
    if name.startswith(GENERIC_MENTIONS_CJK):
        return False
    return (
        len(name) > 1 and name.lower() not in GENERIC_MENTIONS and not TIME_OF_DAY.fullmatch(name)
    )


def _is_named(text: str, match: re.Match[str]) -> bool:
    """Return True if the word after a platform's name is a handle: by its form, or because it
    stands alone.
    """
    name = match["name"]
    follows = text[match.end() : match.end() + 2]
    if name.lower() in GENERIC_MENTIONS:
        return False
    if re.search("[0-9_]|[a-z][A-Z]|[a-z][.][a-z]", name):
        return True
    if match["platform"].lower() in AMBIGUOUS_PLATFORMS and not match["word"]:
        return False
    return match["sign"] in ":=" and (
        not follows.strip() or follows[0] in ",;)\n" or not follows.isascii()
    )


def find_discord_ids(text: str) -> Iterator[EntitySpan]:
    """Find `DISCORD_ID`: mentions of members, roles and channels, and bare ids, except in custom
    emoji.
    """
    if "<" in text:
        for match in MENTION.finditer(text):
            yield EntitySpan.of_match("DISCORD_ID", match, RANK_PATTERN)
    for match in SNOWFLAKE.finditer(text):
        is_emoji = EMOJI_BEFORE.search(text_before(text, match.start(), 50)) is not None
        if MIN_SNOWFLAKE <= int(match[0]) <= MAX_SNOWFLAKE and not is_emoji:
            yield EntitySpan.of_match("DISCORD_ID", match, RANK_PATTERN)
