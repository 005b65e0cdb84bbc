"""Recognises as whom a model writes, by the beginnings of its lines: its own label is left out, and
the reply ends before a line of somebody else, or before a token of a chat template.

A label is a name and a colon before what is said, whatever stands around the name: `**Mina Vale:**`,
`[mina]:`, `> Mina Vale (laughing):`, `[12:30] Mina:`. Lists have names before colons, too: a number
behind one is a score, and nothing in an item with a bullet or a number is a label. Below a heading or
a line that ends with a colon, and behind words that are roles only sometimes, what is said has to be
a sentence: where it cannot be told, the line is shown. In code, nothing is a label.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal

import regex

from personas.markdown_code import find_code
from personas.prompt.frames import fold_label

LabelKind = Literal["own", "other", "word"]
MAX_LABEL_CHARS = 160
"""Characters of a line that may be its label, with markup."""
MIN_NAME_CHARS = 2
COLON_PATTERN = regex.compile("[:：﹕︓∶꞉]")
MAX_COLONS = 4
INVISIBLE_PATTERN = regex.compile(r"\p{Cf}+")
ASIDE_PATTERN = regex.compile(r"(?<=[\s*_~|])[(\[（][^()\[\]（）]{0,60}[)\]）][\s*_~|>]*$")
BEGUN_ASIDE_PATTERN = regex.compile(
    rf"{ASIDE_PATTERN.pattern}|(?<=[\s*_~|])[(\[（][^()\[\]（）]{{0,60}}$"
)
"""What may stand between a name and its colon: "(laughing)", "[12:30]"."""
BRACKETS = {
    "(": ")",
    "[": "]",
    "（": "）",
    "【": "】",
    "「": "」",
    "『": "』",
    "<": ">",
    "〔": "〕",
}
CLOSING_MARKS = {**BRACKETS, "“": "”", "«": "»", **{mark: mark for mark in '*_~|`"'}}
PREFIX_PATTERN = regex.compile(r"[^\p{L}\p{N}]*")
SMILE_PATTERN = regex.compile(r"[-'^o]?(?:[()/\\|]+|[DPp3OoXx])(?![\p{L}\p{N}])")
"""What makes a colon the eyes of a smile: "Mina :) good to see you"."""
STAMP_PATTERN = regex.compile(
    r"[^\p{L}\p{N}]*(?:\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4},?[ T])?"
    r"\d{1,2}[:.]\d\d(?::\d\d)?(?:\s?(?i:[ap]m))?[^\p{L}\p{N}\[<【〔]+"
)
"""The time before a name."""
BRACKETED_PATTERN = regex.compile(
    rf"(?:{STAMP_PATTERN.pattern})?+[*_~|>\s]*(?:<(?P<name>[^<>\n]{{1,80}})>[*_~|]*(?:\s+|$)"
    r"|[\[【〔](?P<name>[^\[\]<>【】〔〕\n]{1,80})[\]】〕][*_~|]*(?:\s++|$)(?!\p{Ll}))"
)
"""A name in brackets; what goes on with a small letter is one sentence with it."""
DASH_PATTERN = regex.compile(r"\s[-–—]{1,2}\s")
ITEM_PATTERN = regex.compile(r"\s*(?:[-*+•·‣]\s|\(?\d{1,3}[.)]\s|\|[^|])")
HEADING_PATTERN = regex.compile(r"\s*(?:#{1,3}\s+\S.*|\*\*[^*]*[^*.!?…]\*\*|__[^_]*[^_.!?…]__)\s*")
ROLES = ("user", "human", "assistant")
INSTRUCTION_ROLES = ("instruction", "input", "response")
"""Words after `###` in the prompts of Alpaca and its successors."""
WORD_ROLES = ("system", "you", "q")
"""Words that begin lines of other texts, too."""
SPACED_HONORIFICS = (" san", " sama", " kun", " chan")
HONORIFICS = (
    *map(
        partial(unicodedata.normalize, "NFKD"),
        ("さん", "さま", "様", "くん", "君", "ちゃん", "先生", "씨", "님"),
    ),
    *SPACED_HONORIFICS,
)
HONORIFIC_PATTERN = regex.compile(r" ?\L<titles>$", titles=HONORIFICS)
BEGUN_HONORIFIC_PATTERN = regex.compile(
    r" ?\L<titles>$",
    titles={title[:size] for title in HONORIFICS for size in range(1, len(title) + 1)},
)
LETTER_PATTERN = regex.compile(r"\p{L}")
NUMBER_PATTERN = regex.compile(r"\P{L}*\p{N}\P{L}*")
SPOKEN_PATTERN = regex.compile(r"[!?…！？؟]|^\s*(?:\*[^*]|[\"“«「『])")
"""What is said, or done, whatever follows."""
SENTENCE_PATTERN = regex.compile(rf"{SPOKEN_PATTERN.pattern}|[.。।][*_~|\"”»」』)\]]*\s*$")
OWN_ROLES = ("assistant", "response", "model")
BARE_ROLES = ("user", "assistant", "system", "model")
"""Roles that stand in a line alone, where the tokens around them were left out of the text."""
OWN_TOKENS = (
    r"<\|(?:im_start|start_header_id|end_header_id|start|message|assistant|begin_of_text"
    r"|START_OF_TURN_TOKEN|CHATBOT_TOKEN|turn)\|?>|<start_of_turn>|<bos>|\[/INST\]|<[|｜]Assistant[|｜]>"
)
OWN_HEADER_PATTERN = regex.compile(
    rf"\s*(?:(?:{OWN_TOKENS})\s*)+(?:(?:assistant|model)(?:[ \t]*(?:{OWN_TOKENS})|[ \t]*\n)\s*)?"
)
"""The beginning of an own turn, such as `<start_of_turn>model`."""
TOKEN_PATTERN = regex.compile(
    r"<[|｜][^<>|｜\s]{1,40}[|｜]?>|<(?:start|end)_of_turn>|<(?:bos|eos)>|<</?SYS>>"
    r"|</?(?:tool_calls?|tool_responses?|tool_results?|function_calls?)>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT)\]"
)
"""Tokens with which chat templates begin turns and calls of tools, written as text."""
FENCE_PATTERN = regex.compile("`{3,}")
TOKEN_START_PATTERN = regex.compile(r"[<\[]")
MAX_TOKEN_CHARS = 48


def own_names(name: str, nickname: str = "") -> tuple[str, ...]:
    """Return the names by which a persona's own lines may begin: all of its name, the nickname, and
    the first word of either.
    """
    names = list[str]()
    for each in filter(None, (name, nickname)):
        names.append(each)
        names += [word for word in each.split()[:1] if len(word) >= MIN_NAME_CHARS]
    return tuple(dict.fromkeys(names))


@dataclass(frozen=True)
class OwnWords:
    """What a model says as itself. `is_cut`: a line of somebody else followed."""

    text: str
    is_cut: bool = False
    is_held: bool = False


NOTHING_YET = OwnWords("", is_held=True)


@dataclass(frozen=True)
class _Lines:
    """The lines up to `end`, what is `said` in them, whether the next line may be an item of a list,
    and whether it stands behind the beginning of a fence.
    """

    end: int = 0
    said: str = ""
    is_introduced: bool = False
    is_listed: bool = False
    in_fence: bool = False

    def followed_by(self, line: str, said: str) -> "_Lines":
        """Return the lines with one more, of which something is said."""
        is_introduced = is_listed = False
        bare = said.strip()
        if not bare:
            is_introduced = self.is_introduced
        elif HEADING_PATTERN.fullmatch(said) or _ends_with_colon(bare):
            is_introduced = True
        elif self.is_introduced or self.is_listed:
            is_listed = bool(ITEM_PATTERN.match(said) or COLON_PATTERN.search(said))
        return _Lines(
            self.end + len(line),
            self.said + said,
            is_introduced=is_introduced,
            is_listed=is_listed,
            in_fence=self.in_fence != (len(FENCE_PATTERN.findall(line)) % 2 == 1),
        )


class SpeakerLabels:
    """The labels of one growing reply: `own` names are the persona's, `others` those of everybody
    else. Without any names, nothing is looked for.
    """

    def __init__(self, own: Iterable[str] = (), others: Iterable[str] = ()) -> None:
        self._given = (tuple(own), tuple(others))
        self._own = {fold_label(name) for name in self._given[0]} - {""}
        self._others = {fold_label(name) for name in self._given[1]} - {"", *self._own}
        self._is_active = bool(self._own or self._others)
        surnames = {word for name in self._others for word in name.split()[1:]}
        own_words = {word for name in self._own for word in name.split()}
        self._others |= {word for word in surnames - own_words if len(word) >= MIN_NAME_CHARS}
        self._others |= {*ROLES} - self._own
        prefixes = set[str]()
        roles = (*BARE_ROLES, *INSTRUCTION_ROLES, *WORD_ROLES)
        for name in (*self._own, *self._others, *roles):
            prefixes |= {name[:size].strip() for size in range(len(name) + 1)}
        self._prefixes = prefixes
        self._seen = ""
        self._lines = _Lines()

    def anew(self) -> "SpeakerLabels":
        """Return the labels of another reply to the same request."""
        return SpeakerLabels(*self._given)

    def own_words(self, text: str, *, is_whole: bool) -> OwnWords:
        """Return what a model says as itself in a text; of one that is not whole, what no further
        text can change.
        """
        if not self._is_active:
            return OwnWords(text)
        lines = self._lines
        if not (self._seen and text.startswith(self._seen)):
            header = self._own_header(text, is_whole=is_whole)
            if header is None:
                return NOTHING_YET
            lines = _Lines(end=header)
        while (line_end := text.find("\n", lines.end)) >= 0:
            said = self._line_words(text, lines, line_end + 1, is_whole=is_whole)
            if said.is_cut or said.is_held:
                return OwnWords(lines.said + said.text, said.is_cut)
            lines = lines.followed_by(text[lines.end : line_end + 1], said.text)
            self._seen = text[: lines.end]
            self._lines = lines
        said = self._line_words(text, lines, len(text), is_whole=is_whole)
        return OwnWords(lines.said + said.text, said.is_cut)

    def _own_header(self, text: str, *, is_whole: bool) -> int | None:
        """Return where the text begins behind the tokens of its own turn; None while more of them
        may follow.
        """
        header = OWN_HEADER_PATTERN.match(text)
        if not is_whole and OWN_HEADER_PATTERN.fullmatch(text, partial=True):
            return None
        return header.end() if header else 0

    def _line_words(self, text: str, lines: _Lines, end: int, *, is_whole: bool) -> OwnWords:
        """Return what of the line after others, up to `end`, is the model's own."""
        line = text[lines.end : end]
        is_complete = is_whole or line.endswith("\n")
        said = self._without_label(line, lines, is_whole=is_complete)
        if not (said.is_cut or said.is_held):
            said = _before_token(said.text, is_whole=is_complete)
        if lines.in_fence and said != OwnWords(line):
            if "```" in text[lines.end :]:
                return OwnWords(line)
            if not is_whole:  # the fence may end later, or never
                return NOTHING_YET
        return said

    def _without_label(self, line: str, lines: _Lines, *, is_whole: bool) -> OwnWords:
        """Leave out an own label; a line of somebody else is cut."""
        is_first = not lines.said.strip()
        label = self._label(line, is_first=is_first, is_whole=is_whole)
        if label is None:
            return OwnWords(line)
        if label.is_open:
            return NOTHING_YET
        is_unclear = lines.is_introduced or lines.is_listed or label.kind == "word"
        needs_sentence = is_unclear and not label.is_instruction
        is_talk = _is_talk(line[label.end :], needs_sentence=needs_sentence, is_whole=is_whole)
        if not is_talk:
            return NOTHING_YET if is_talk is None else OwnWords(line)
        if label.kind != "own":
            return OwnWords("", is_cut=True)
        rest = line[label.end :]
        return OwnWords(label.kept_marks + (rest.lstrip() if is_first else rest.lstrip(" \t")))

    def _label(self, line: str, *, is_first: bool, is_whole: bool) -> "_Label | None":
        if ITEM_PATTERN.match(line):
            return None
        bare = line.strip().casefold()
        if line.endswith("\n") and bare in BARE_ROLES:
            return _Label("own" if is_first and bare in OWN_ROLES else "other", len(line))
        for colon in islice(COLON_PATTERN.finditer(line, 0, MAX_LABEL_CHARS), MAX_COLONS):
            if label := self._label_before(line, colon, is_first=is_first, is_whole=is_whole):
                return label
        if label := self._label_without_colon(line, is_first=is_first, is_whole=is_whole):
            return label
        if not is_whole and self._may_become_label(line):
            is_instruction = line.lstrip().startswith("#")
            return _Label("other", 0, is_open=True, is_instruction=is_instruction)
        return None

    def _label_without_colon(self, line: str, *, is_first: bool, is_whole: bool) -> "_Label | None":
        if bracketed := BRACKETED_PATTERN.match(line):
            end = bracketed.end()
            name = INVISIBLE_PATTERN.sub("", bracketed["name"])
            if kind := self._kind(name, is_first=is_first):
                return _Label(kind, end, is_open=not is_whole and end == len(line))
        dash = DASH_PATTERN.search(line, 0, MAX_LABEL_CHARS)
        if dash and not is_first:  # a first line may tell who somebody is
            name = fold_label(_without_time(line[: dash.start()]))
            if " " in name and name in self._others:
                return _Label("other", dash.end())
        return None

    def _label_before(
        self, line: str, colon: "regex.Match[str]", *, is_first: bool, is_whole: bool
    ) -> "_Label | None":
        head = _without_time(INVISIBLE_PATTERN.sub("", line[: colon.start()]))
        kind = self._kind(head, is_first=is_first)
        if kind is None:
            return None
        marks = PREFIX_PATTERN.match(head)[0]
        smile = SMILE_PATTERN.match(line, colon.end())
        if not smile or BRACKETS.keys() & set(marks):
            end, kept = _label_end(line, head, colon.end(), marks)
            is_open = not is_whole and end == len(line)
            return _Label(kind, end, kept, is_open=is_open, is_instruction=_is_instruction(line))
        if not is_whole and smile.end() == len(line):
            return _Label(kind, 0, is_open=True)
        return None

    def _kind(self, head: str, *, is_first: bool) -> LabelKind | None:
        """Tell whose label a line's beginning up to the colon is; None for no label."""
        for text in dict.fromkeys((head, ASIDE_PATTERN.sub("", head))):
            name = fold_label(text)
            for called in (name, HONORIFIC_PATTERN.sub("", name)):
                if kind := self._kind_of_name(called, head, is_first=is_first):
                    return kind
        return None

    def _kind_of_name(self, name: str, head: str, *, is_first: bool) -> LabelKind | None:
        if name in self._own:
            return "own"
        if name == "assistant" or (name in INSTRUCTION_ROLES and _is_instruction(head)):
            return "own" if is_first and name in OWN_ROLES else "other"
        if name in self._others:
            return "other"
        return "word" if name in WORD_ROLES and not is_first else None

    def _may_become_label(self, line: str) -> bool:
        if len(line) > MAX_LABEL_CHARS or line.endswith("\n"):
            return False
        line = INVISIBLE_PATTERN.sub("", line)
        if STAMP_PATTERN.fullmatch(line, partial=True):
            return True
        line = _without_time(line)
        names = {fold_label(line), fold_label(BEGUN_ASIDE_PATTERN.sub("", line))}
        names |= {BEGUN_HONORIFIC_PATTERN.sub("", name) for name in names}
        return not self._prefixes.isdisjoint(names)


@dataclass(frozen=True)
class _Label:
    """A label up to its `end` in a line. `is_open`: further text may change it. `kept_marks` belong
    to what follows it.
    """

    kind: LabelKind
    end: int
    kept_marks: str = ""
    is_open: bool = False
    is_instruction: bool = False


def _without_time(text: str) -> str:
    stamp = STAMP_PATTERN.match(text)
    return text[stamp.end() :] if stamp else text


def _is_talk(words: str, *, needs_sentence: bool, is_whole: bool) -> bool | None:
    """Tell whether what stands behind a name is said by it; None while further text decides."""
    if needs_sentence:
        pattern = SENTENCE_PATTERN if is_whole else SPOKEN_PATTERN
        return bool(pattern.search(words)) or (False if is_whole else None)
    if is_whole:
        return not NUMBER_PATTERN.fullmatch(words)
    return LETTER_PATTERN.search(words) is not None or None


def _is_instruction(line: str) -> bool:
    return line.lstrip().startswith("##")


def _ends_with_colon(line: str) -> bool:
    bare = line.rstrip('*_~|"”»)] \t')
    return COLON_PATTERN.fullmatch(bare[-1:]) is not None


def _label_end(line: str, head: str, colon_end: int, marks: str) -> tuple[int, str]:
    """Return where a label ends, with the marks that close those before its name, and those of them
    that nothing closes there.
    """
    pairs = {mark: CLOSING_MARKS[mark] for mark in marks if mark in CLOSING_MARKS}
    if not pairs or head.rstrip()[-1] in pairs.values():
        return colon_end, ""
    closing = "".join(map(regex.escape, pairs.values()))
    if closed := regex.compile(rf"[ \t]?[{closing}]+").match(line, colon_end):
        return closed.end(), ""
    return colon_end, "".join(mark for mark in marks if mark in pairs)


def _before_token(said: str, *, is_whole: bool) -> OwnWords:
    """Return what a line says before a token of a template, if there is one outside of code."""
    tokens = [*TOKEN_PATTERN.finditer(said)]
    code = find_code(said if tokens else "")
    for token in tokens:
        at = token.start()
        around = [span for span in code.spans if span.start < at < span.end]
        if around and (is_whole or around[0].end < len(said)):
            continue
        # Further backticks may begin or end code.
        is_open = not is_whole and bool(around or (code.open_at is not None and code.open_at < at))
        return OwnWords(said[:at], is_cut=not is_open, is_held=is_open)
    if not is_whole:
        tail = max(0, len(said) - MAX_TOKEN_CHARS)
        for sign in TOKEN_START_PATTERN.finditer(said, tail):
            if TOKEN_PATTERN.fullmatch(said, sign.start(), partial=True):
                return OwnWords(said[: sign.start()], is_held=True)
    return OwnWords(said)
