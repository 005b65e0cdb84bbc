"""Recognises keys, tokens and passwords: by the issuer's format, by a cue word, and inside URLs."""

import re
from collections.abc import Callable, Iterator

from trainer.anonymise.language_data import LATIN, WORD_START
from trainer.anonymise.spans import RANK_SECRET, EntitySpan

B64 = "[A-Za-z0-9_-]"
ISSUER_FORMATS: tuple[tuple[str, str], ...] = (
    # a substring of every match, and the pattern; a group is its secret part
    (
        ".",
        rf"{WORD_START}[MNO]{B64}{{22,28}}\.{B64}{{6,7}}\.{B64}{{27,50}}",
    ),  # Discord: bots and users
    ("mfa.", rf"{WORD_START}mfa\.{B64}{{60,}}"),  # Discord: users, before 2022
    ("/webhooks/", rf"/api/(?:v[0-9]+/)?webhooks/([0-9]{{15,20}}/{B64}{{20,}})"),  # Discord
    ("hooks.slack.com", r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9_/]{16,})"),
    ("gh", rf"{WORD_START}gh[pousr]_[A-Za-z0-9]{{20,}}"),
    ("github_pat_", r"github_pat_[A-Za-z0-9_]{22,}"),
    ("glpat-", rf"glpat-{B64}{{20,}}"),
    ("A", rf"{WORD_START}(?:AKIA|ASIA|AROA|AIDA)[0-9A-Z]{{16}}(?![0-9A-Z])"),
    ("xox", r"xox[abeoprs]-[A-Za-z0-9-]{10,}"),
    ("xapp-", r"xapp-[0-9]-[A-Za-z0-9-]{10,}"),
    (
        "sk-",
        rf"{WORD_START}sk-(?=[A-Za-z0-9_-]*[0-9]){B64}{{20,}}",
    ),  # OpenAI and those who took after it
    ("_", rf"{WORD_START}(?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{{10,}}"),  # Stripe
    ("whsec_", r"whsec_[A-Za-z0-9+/=]{20,}"),
    ("AIza", rf"AIza{B64}{{35}}"),  # Google
    ("GOCSPX-", rf"GOCSPX-{B64}{{20,}}"),
    ("ya29.", rf"ya29\.{B64}{{20,}}"),
    ("hf_", rf"{WORD_START}hf_[A-Za-z0-9]{{30,}}"),
    ("npm_", rf"{WORD_START}npm_[A-Za-z0-9]{{36}}"),
    ("pypi-", rf"pypi-{B64}{{50,}}"),
    ("SG.", rf"{WORD_START}SG\.{B64}{{16,}}\.{B64}{{16,}}"),
    ("dop_v1_", r"dop_v1_[a-f0-9]{64}"),
    (":A", rf"(?<![0-9])[0-9]{{8,10}}:A{B64}{{33,36}}"),  # Telegram's bots
    ("eyJ", rf"eyJ{B64}{{8,}}\.{B64}{{8,}}(?:\.{B64}*)?"),  # JWT
    ("-----BEGIN", r"-----BEGIN [A-Z0-9 ]+-----(?:.(?!-----END))*(?:.-----END [A-Z0-9 ]+-----)?"),
    ("earer", r"[Bb]earer\s+(?=[^\s]*[0-9])([A-Za-z0-9._~+/-]{16,}=*)"),
    ("asic", r"[Bb]asic\s+(?=[^\s]*[A-Z0-9])([A-Za-z0-9+/]{12,}={1,2})"),
)
_ISSUER_PATTERNS = [(needle, re.compile(form, re.DOTALL)) for needle, form in ISSUER_FORMATS]
VALUE = r"(?P<quote>[\"'`]?)(?P<value>[!-~]{4,200})"
ASSIGNMENT = r"\s{0,3}(?::=|=>|=|:|(?P<is>\bis\b|là|是|为|為|は))\s{0,3}"
PASSWORD = re.compile(
    r"(?:pass(?:word|wd|phrase|code)|(?<![A-Za-z])pwd?(?![A-Za-z])|"
    r"mật khẩu|mat khau|密码|密碼|口令|パスワード|暗証番号)[\"'`*]{0,2}"
    rf"(?P<between>(?: [{LATIN}-]{{1,12}}){{0,3}}?)" + ASSIGNMENT + VALUE,
    re.IGNORECASE,
)
KEY = re.compile(
    r"(?:secret|token|credential|(?:api|access|auth|private|signing|encryption|account|master|license)[ _-]?key|密钥|"
    r"密鑰|令牌|トークン|khóa api|(?<![A-Za-z])pass(?![A-Za-z]))s?[A-Za-z0-9_-]{0,20}[\"'`*]{0,2}"
    + ASSIGNMENT
    + VALUE,
    re.IGNORECASE,
)
ONE_TIME = re.compile(
    r"(?:(?<![A-Za-z])otp|mã (?:pin|xác (?:nhận|thực|minh))|(?<![A-Za-z])(?:verification|security|login|2fa|"
    r"one[ -]time|auth(?:entication)?) (?:code|password|pin)|(?<![A-Za-z])pin(?= (?:is|là)|:)|"
    r"验证码|驗證碼|認証(?:コード|番号))"
    rf"(?: (?:code|number|của|for|my|the|em|anh|chị|mình|tôi|bạn|[A-Za-z]{{2,10}})){{0,3}}?(?:{ASSIGNMENT}|\s)?"
    r"(?P<code>[0-9]{4,8}|[0-9]{3}[ -][0-9]{3})(?![0-9])",
    re.IGNORECASE,
)
PASSPHRASE = re.compile(
    rf"(?:pass ?phrase|(?:seed|recovery|backup) (?:phrase|words)|mnemonic){ASSIGNMENT}[\"'`]?"
    r"(?P<words>[a-z]{3,12}(?:[ -][a-z]{3,12}){3,23})",
    re.IGNORECASE,
)
PROSE_WORDS = frozenset(
    """the and that this for with you your not are was has have but can will too very just still now only required wrong
    right correct incorrect needed missing lost gone because when where what which who how there here again please sorry
    longer than from into about made stored kept written used asked changed something somewhere probably never always
    wrongly empty optional case sensitive invalid forgotten reset""".split()
)
"""Words of sentences about a passphrase; `correct` counts only before another of them."""
_CUES = re.compile(
    "pass|pw|otp|code|pin|phrase|mã|mnemonic|验证|驗證|認証|"
    "secret|token|credential|key|khẩu|mat khau|密|口令|令牌|パス|暗証|トークン|khóa api",
    re.IGNORECASE,
)
PLACEHOLDER = re.compile(
    r"[<{\[$%(].*|[*x.•_-]+|.*\(.*|(?:os|process|self|config|settings|env)\..*|none|null|true|false|required|optional|"
    r"string|str|bytes|incorrect|invalid|forgotten|reset|please",
    re.IGNORECASE,
)
"""Placeholders for secrets: a blank, a variable, a call, a description."""
SURROUNDING_SIGNS = "\"'`,;.)]}*!?"
"""Characters around a value that are not part of it."""
MIN_PASSPHRASE_WORDS = 4
WEAK_PARAMETERS = "key|code|sid|session|auth|pass|otp|hm"
URL_PARAMETER = re.compile(
    r"[?&;#](?:[A-Za-z0-9_.-]{0,30}?(?:token|secret|signature|password|passwd|api[_-]?key|accesskeyid|credential|jwt)|"
    rf"sig|pwd|sessionid|{WEAK_PARAMETERS})=([!-%'-~]{{4,}})",
    re.IGNORECASE,
)
"""Query parameters with secrets; `hm` signs links to Discord's files."""
AUTHORITY_CHAR = '[!"$-.0->@-~]'
USERINFO = re.compile(
    rf"[A-Za-z][A-Za-z0-9+.-]{{1,20}}://({AUTHORITY_CHAR}{{1,200}}:{AUTHORITY_CHAR}{{1,200}})@[A-Za-z0-9\[]"
)
PARAMETER_BEFORE = re.compile(r"[?&][A-Za-z0-9_.-]*$")


def find_secrets(text: str) -> Iterator[EntitySpan]:
    """Find `SECRET`: values in an issuer's format, and values after a word for a password or
    key.
    """
    for needle, form in _ISSUER_PATTERNS:
        if needle in text:
            for match in form.finditer(text):
                yield EntitySpan.of_match("SECRET", match, RANK_SECRET, group=match.lastindex or 0)
    if _CUES.search(text):
        yield from _labelled_values(text, PASSWORD, _is_password)
        for match in ONE_TIME.finditer(text):
            yield EntitySpan.of_match("SECRET", match, RANK_SECRET, group="code")
        yield from _passphrases(text)
        yield from _labelled_values(text, KEY, _is_key)


def find_url_secrets(text: str) -> Iterator[EntitySpan]:
    """Find `URL_SECRET`: user and password before a host, and values of parameters that grant
    access.
    """
    if "://" in text and "@" in text:
        for match in USERINFO.finditer(text):
            yield EntitySpan.of_match("URL_SECRET", match, RANK_SECRET, group=1)
    if "=" in text:
        for match in URL_PARAMETER.finditer(text):
            start, end = match.span(1)
            value = re.split(r"[&#\"'<>()\s]", match[1])[0].rstrip(".,;:!?")
            if len(value) >= 4:
                yield EntitySpan("URL_SECRET", start, min(end, start + len(value)), RANK_SECRET)


def _labelled_values(
    text: str, pattern: re.Pattern[str], is_secret: Callable[[str, bool, bool], bool]
) -> Iterator[EntitySpan]:
    for match in pattern.finditer(text):
        if PARAMETER_BEFORE.search(text[max(0, match.start() - 40) : match.start()]):
            continue  # part of a URL: see `find_url_secrets`
        value = match["value"]
        quote = match["quote"]
        start = match.start("value")
        value = value.split(quote)[0] if quote else value.rstrip(SURROUNDING_SIGNS)
        follows = text[start + len(value) : start + len(value) + 3].lstrip(SURROUNDING_SIGNS)
        is_alone = bool(quote) or not follows or follows[0] in "\r\n" or not follows.isascii()
        in_prose = match["is"] is not None or bool(match.groupdict().get("between"))
        if (
            len(value) >= 4
            and not PLACEHOLDER.fullmatch(value)
            and is_secret(value, in_prose, is_alone)
        ):
            yield EntitySpan("SECRET", start, start + len(value), RANK_SECRET)


def _passphrases(text: str) -> Iterator[EntitySpan]:
    """Find four or more words that form no sentence, after a word for a passphrase."""
    for match in PASSPHRASE.finditer(text):
        words = 0
        end = match.start("words")
        for word in re.finditer("[A-Za-z]+", match["words"]):
            if word[0].lower() in PROSE_WORDS - {"correct"}:
                break
            words = words + 1
            end = match.start("words") + word.end()
        if words >= MIN_PASSPHRASE_WORDS:
            yield EntitySpan("SECRET", match.start("words"), end, RANK_SECRET)


def _is_password(value: str, in_prose: bool, is_alone: bool) -> bool:
    """Return True for a single word after a colon; in prose, and for others, only with a digit or
    special character.
    """
    is_odd = re.search(r"[0-9@#$%^&*_!+=~|\\/]", value) is not None
    return is_odd or (not in_prose and (is_alone or re.search(r"[a-z][A-Z]", value) is not None))


def _is_key(value: str, in_prose: bool, is_alone: bool) -> bool:
    is_mixed = re.search("[0-9]", value) is not None and re.search("[A-Za-z]", value) is not None
    return len(value) >= 8 and (is_mixed or (is_alone and len(value) >= 20 and not in_prose))
