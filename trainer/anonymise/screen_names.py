"""Recognises screen names without an @: after a label, beside a platform, before quoted lines."""

import re
from collections.abc import Iterator

from personas.engine.thoughts import TAG_WORDS
from trainer.anonymise.crf_ner.gazetteer import load_gazetteer
from trainer.anonymise.language_data import LATIN, text_before
from trainer.anonymise.spans import RANK_HANDLE, EntitySpan

NICKNAME = rf"[{LATIN}0-9_](?:[{LATIN}0-9_.~]{{1,30}}[{LATIN}0-9_])"
TOKEN = re.compile(
    rf"(?<![{LATIN}0-9_.@/#:=&?+-])(?=[{LATIN}0-9.]*(?:_|[{LATIN}][0-9]|[0-9][{LATIN}]|[a-z][A-Z]|"
    rf"[a-z]\.[a-z])){NICKNAME}"
    rf"(?![{LATIN}0-9_/@(\\=-])"
)
NICK_SHAPE = re.compile(
    rf"[{LATIN}]{{3}}[0-9]{{1,4}}$|[{LATIN}0-9]_[{LATIN}0-9]|^[xX]{{1,2}}_|_$|^_|[a-z][A-Z][a-z]|"
    rf"[a-z]\.[a-z]|[{LATIN}][0-9][{LATIN}]"
)
"""What is written like a screen name: with digits, underscores, inner capitals or dots."""
PLATFORM = (
    r"insta(?:gram)?|ig|twitter|telegram|tg|tiktok|snap(?:chat)?|discord|steam|skype|psn|xbox(?: "
    r"live)?|battle\.?net|"
    r"roblox|minecraft|reddit|twitch|facebook|fb|kik|signal|mastodon|bluesky|bsky|threads|youtube|"
    r"github|soundcloud|"
    r"spotify|tumblr|pinterest|epic|riot|strava|duolingo|lichess|chess\.com|goodreads|letterboxd|"
    r"whatsapp|wechat|line|"
    r"last\.fm|vinted|ebay|etsy|matrix|slack|teams"
)
STRONG_LABEL = (
    r"user ?name|screen ?name|nick ?name|handle|gamer ?tag|ign|in-game name|login(?: name)?|"
    r"account name|display name|"
    r"player ?tag|benutzername|nutzername|spitzname|pseudo(?:nyme)?|identifiant|apodo|nombre de "
    r"usuario|nome utente|"
    r"gebruikersnaam|brukernavn|nazwa użytkownika|nome de utilizador|όνομα χρήστη|ψευδώνυμο|"
    r"ユーザー名|ニックネーム|ハンドルネーム|用户名|昵称|網名|网名|닉네임|아이디"
)
LABEL = (
    rf"{STRONG_LABEL}|user(?: ?id)?|nick|ids?|tag|account|acct|alias|profile|player|member|poster|"
    rf"author|speaker|"
    r"usuario|utente|soprannome|bijnaam|kallenavn|ksywka|utilizador|usuário|apelido|kontakt|name"
)
IS = r"(?:[:=：]|(?:is|was|ist|lautet|est|es|è|er|é|to|είναι)(?=\s)|は|是|은|는)"
LABELLED_WORD = re.compile(
    rf"(?<![{LATIN}])(?:{STRONG_LABEL})s?(?:\s?\(?(?:on|auf|sur|en|su|op|på|na|no)? "
    rf"?(?:{PLATFORM})\)?)?\s{{0,2}}{IS}"
    rf"\s{{0,2}}[\"'“„«「]?(?P<name>{NICKNAME})(?![{LATIN}0-9_/@-])",
    re.IGNORECASE,
)
GREETING = (
    r"add|follow|dm|pm|msg|message|ping|ask|find me|thanks|thank you|thx|ty|hey|hi|hello|yo|cc|gg|"
    r"credits?(?: to)?|shout-?out to|welcome|love|cheers|regards|known as|go(?:es)? by|went by|"
    r"i['’]?m|i am|call me|calls me|"
    r"reported|banned|muted|kicked|blocked|invited?|tag(?:ged)?|mod|admin|search(?: for)?|aka|"
    r"a\.k\.a\.|looking for"
)
LINK_WORD = (
    r"by|user|player|named|called|from|it['’]?s|with|and|to|as|under|at|than|is|was|von|mit|und|"
    r"als|unter|de|con|y|come|com|"
    r"van|met|fra|med|og|od|z"
)
"""Words before which a token of common words (`user_id`) is no screen name."""
BEFORE = re.compile(
    rf"(?<![{LATIN}_])(?:(?P<label>{LABEL})s?(?:\s?\(?(?:on|auf|sur|en|su|op|på|na|no)? "
    rf"?(?:{PLATFORM})\)?)?\s{{0,2}}{IS}|"
    rf"(?:{STRONG_LABEL})|"
    rf"(?:{PLATFORM})(?:['’]s)?(?:\s(?:name|id|handle|user(?:name)?|tag|account|"
    rf"profile))?\s{{0,2}}(?:{IS}|[(–—>,-]{{1,2}}|as|under|at)?|"
    rf"(?:{GREETING}),?:?(?: me)?|(?P<link>{LINK_WORD}),?)\s{{0,2}}[\"'“„«「*]{{0,2}}$"
)
AFTER = re.compile(
    rf"[\"'”“»」*]{{0,2}},? ?(?:\(|(?:over )?(?:on|auf|bei|sur|en|su|op|på|na|no|in)\s(?:the "
    rf")?)(?:{PLATFORM})(?![{LATIN}])",
    re.IGNORECASE,
)
REDDIT = re.compile(rf"(?<![{LATIN}0-9/_.])/?u/[A-Za-z0-9_-]{{3,20}}(?![A-Za-z0-9_/-])")
WROTE = (
    r"wrote|said|says|replied|posted|asked|schrieb|sagte|skrev|sa|ha scritto|escribió|dijo|"
    r"escreveu|disse|a écrit|a dit|"
    r"schreef|zei|napisała?|έγραψε|είπε"
)
SPEAKER = re.compile(
    rf"^[ "
    rf"\t]*(?P<time>[\[(]?[0-9]{{1,2}}[:.][0-9]{{2}}(?:[:.][0-9]{{2}})?(?:\s?[ap]\.?m\.?)?[\])]?,?"
    rf"\s{{1,2}}(?:-\s)?)?"
    rf"(?:<(?P<bracket>{NICKNAME})>\s|(?P<name>{NICKNAME})(?::\s|\s(?:{WROTE})(?![{LATIN}])|"
    rf"\s[—–]\s))(?=\S)",
    re.MULTILINE,
)
MIN_SPOKEN_WORDS = 3
ROLES = frozenset(
    "gm dm mod admin bot system host op user guest player narrator everyone all note info warning "
    "error debug start end open "
    "doors break lunch dinner breakfast arrival departure check topic title subject server staff "
    "team coach".split()
)
PLAIN_ON_PLATFORM = re.compile(
    rf"(?<![{LATIN}])(?:i['’]?m|i am|add(?: me)?|find me as|follow|known as|user|as|it['’]?s|its|"
    rf"called|dm) (?P<name>[a-z0-9]{{5,24}})"
    rf" (?:(?:over )?(?:on|auf|sur|en|su|op|på|na|no) )(?:{PLATFORM})(?![{LATIN}])",
    re.IGNORECASE,
)
MARKUP_TAGS = frozenset(
    (
        *"br hr li ul ol div span body head html code pre img table tr td th em strong".split(),
        *TAG_WORDS.split("|"),
    )
)
NOT_A_NICKNAME = re.compile(
    r"v?[0-9.]+[a-z]{0,2}|[a-z]{1,2}[0-9]{1,4}[a-z]?|[0-9.]+[a-z]{1,3}|.*\.(?:py|js|ts|md|txt|"
    r"json|ya?ml|toml|exe|zip|png|jpe?g|"
    r"gif|pdf|csv|html?|com|org|net|io|dev|example|docx?|xlsx?|mp[34]|ini|cfg|log|sh|[a-z]{2})|"
    r"[0-9]{1,2}(?:am|pm).*|[ap]\.m\.?",
    re.IGNORECASE,
)
"""Versions, files, domains and times of day."""
NUMBERED_WORDS = frozenset(
    "covid page step level part item day room test chapter top file section area route".split()
)
"""Words that are followed by a number without a space."""


def find_screen_names(text: str) -> Iterator[EntitySpan]:
    """Find `HANDLE`: `u/name`, names after a label, and nicknames beside a platform or greeting."""
    names: set[str] = set()
    for start, end in (*_in_context(text), *_labelled(text), *_speakers(text)):
        names.add(text[start:end])
        yield EntitySpan("HANDLE", start, end, RANK_HANDLE)
    if "u/" in text:
        for match in REDDIT.finditer(text):
            yield EntitySpan.of_match("HANDLE", match, RANK_HANDLE)
    for name in names:
        if text.count(name) > 1 and is_nickname(name):
            whole = rf"(?<![{LATIN}0-9_./@]){re.escape(name)}(?![{LATIN}0-9_@])"
            for match in re.finditer(whole, text):
                yield EntitySpan.of_match("HANDLE", match, RANK_HANDLE)


def _in_context(text: str) -> Iterator[tuple[int, int]]:
    for match in TOKEN.finditer(text):
        if is_nickname(match[0]) and (_is_called(text, match) or AFTER.match(text, match.end())):
            yield match.span()


def _is_called(text: str, token: re.Match[str]) -> bool:
    before = BEFORE.search(text_before(text, token.start(), 40))
    if before is None:
        return False
    is_after_label = before["link"] or before["label"]
    return not (is_after_label and _is_identifier(token[0]))


def _is_identifier(word: str) -> bool:
    """Return True for common words joined as in a program: `user_id`, `fileName`."""
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+", word)
    if any(map(str.isdigit, parts)):
        return False
    return all(len(part) < 3 or "c" in load_gazetteer().of(part.lower()) for part in parts)


def _labelled(text: str) -> Iterator[tuple[int, int]]:
    for match in (*LABELLED_WORD.finditer(text), *PLAIN_ON_PLATFORM.finditer(text)):
        name = match["name"]
        if "c" not in load_gazetteer().of(name) and not NOT_A_NICKNAME.fullmatch(name):
            yield match.span("name")


def _speakers(text: str) -> Iterator[tuple[int, int]]:
    for match in SPEAKER.finditer(text):
        bracket = match["bracket"]
        name = match["name"]
        if bracket:
            if bracket.lower() not in MARKUP_TAGS and f"</{bracket}>" not in text:
                yield match.span("bracket")
            continue
        is_timed = match["time"] and _is_somebody(name)
        if is_timed or (is_nickname(name) and _is_speech(text, match.end())):
            yield match.span("name")


def _is_somebody(name: str) -> bool:
    """Return True unless a word is a role in a chat, a given name (a `PERSON`), or no word."""
    return (
        name.lower() not in ROLES
        and "g" not in load_gazetteer().of(name)
        and not NOT_A_NICKNAME.fullmatch(name)
    )


def is_nickname(word: str) -> bool:
    """Return True for a word of a nickname's form that is no version, file or product."""
    if NOT_A_NICKNAME.fullmatch(word) or not NICK_SHAPE.search(word):
        return False
    letters = re.sub(r"[^a-z]", "", word.lower())
    return (
        len(letters) >= 3
        and letters not in NUMBERED_WORDS
        and "b" not in load_gazetteer().of(letters)
    )


def _is_speech(text: str, position: int) -> bool:
    """Return True if words follow, not the value of a setting."""
    line = text[position : position + 80].split("\n", 1)[0].rstrip()
    return len(line.split()) >= MIN_SPOKEN_WORDS or line[-1:] in (".", "!", "?")
