"""Renders messages with a model's chat template and probes its control tokens."""

from __future__ import annotations

import re
from typing import Any

from jinja2 import TemplateError

from personas.unicode_normalise import to_nfc

FIXED_DATE = "01 January 2025"
"""What templates that print a date get: prompts must not change from one day to the next."""

FIXED_CLOCK_MACRO = "{% macro strftime_now(format) %}" + FIXED_DATE + "{% endmacro +%}"
"""Put before a template, it hides the clock that transformers gives to templates."""

TURN_MARKER_PATTERN = re.compile(r"\[/?[A-Z_]{2,}\]|<[|｜/]?[^<>\s]{1,40}>")
"""What in a template's own text marks turns though the tokenizer knows no control token of that name: `[/INST]`."""

ROLE_PATTERN = re.compile(r"^(\w+):", re.MULTILINE)
"""And what marks them where a template names who speaks in plain words: `Assistant:`."""

REPLY_PROBE = "ANSWER-PROBE"

Message = dict[str, str]


class ChatTemplate:
    """Renders with one tokenizer. All that it knows of the template it has found by rendering probes.

    `has_system` says whether there is a system role. `lead` stands before a reply's first word: a blank, with some
    templates. `end_of_turn` follows a reply, `end_ids` are its tokens; any of `stop_ids` ends a reply.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._template = FIXED_CLOCK_MACRO + tokenizer.get_chat_template()
        talk = self.render([_user("hello"), _assistant("well"), _user("hello")])
        self._control = sorted({*_special_tokens(tokenizer), *TURN_MARKER_PATTERN.findall(talk)}, key=len, reverse=True)
        for token in self._control:
            talk = talk.replace(token, "\n")
        self._roles = re.compile(rf"^({'|'.join(ROLE_PATTERN.findall(talk)) or '(?!)'}):", re.MULTILINE)
        self.has_system = self._accepts_system()
        self.lead = self._probe_lead()
        self.end_of_turn = self._probe_end_of_turn()
        self.end_ids = tuple(self.encode(self.end_of_turn))
        single = self.end_ids if len(self.end_ids) == 1 else ()
        eos = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        self.stop_ids = tuple(dict.fromkeys((*single, *eos)))

    def render(self, messages: list[Message], prompt: bool = True) -> str:
        """The talk as text; a `prompt` ends where the next reply begins. Raises jinja2's `TemplateError`."""
        rendered: str = self._tokenizer.apply_chat_template(
            messages,
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=prompt,
            date_string=FIXED_DATE,
            enable_thinking=False,
        )
        return rendered

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, none added."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def plain(self, text: str) -> str:
        """`broken_up`, without blanks at either end."""
        return self.break_control_tokens(text.strip())

    def break_control_tokens(self, text: str) -> str:
        """Text that cannot end its own turn: what the model takes for a turn's mark is broken up where it was typed.

        Letters are brought to the form that tokenizers know (`personas.unicode_normalise`).
        """
        text = to_nfc(text)
        for token in self._control:
            text = text.replace(token, token[0] + " " + token[1:])
        return self._roles.sub(r"\1 :", text)

    def _accepts_system(self) -> bool:
        try:
            marked = [{"role": "system", "content": "SYSTEM-PROBE"}, _user("hello")]
            return "SYSTEM-PROBE" in self.render(marked)
        except TemplateError:
            return False

    def _probe_lead(self) -> str:
        """What stands between where the template lets a reply begin and its first word.

        Where the tokenizer puts a blank before every text by itself, there is none to add.
        """
        begun = self.render([_user("hello")])
        before = self.render([_user("hello"), _assistant(REPLY_PROBE)], prompt=False).rpartition(REPLY_PROBE)[0]
        lead = before.removeprefix(begun)
        parts = self.encode(begun) + self.encode(lead + REPLY_PROBE)
        return lead if not lead.strip() and parts == self.encode(before + REPLY_PROBE) else ""

    def _probe_end_of_turn(self) -> str:
        """What follows a reply, up to its first control token: some templates end the whole talk after it."""
        talk = [_user("hello"), _assistant(REPLY_PROBE)]
        after = self.render(talk, prompt=False).rpartition(REPLY_PROBE)[2].strip()
        found = [(after.find(token), -len(token)) for token in self._control if token in after]
        first, size = min(found, default=(len(after), 0))
        end: str = after[: first - size] or self._tokenizer.eos_token
        return end


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _special_tokens(tokenizer: Any) -> list[str]:
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return [token for token in (*tokenizer.all_special_tokens, *added) if len(token) > 1]
