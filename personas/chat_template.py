"""Renders messages with a model's chat template and probes its control tokens."""

import json
import re
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError

from personas.schemas.chat import to_nfc
from personas.schemas.hyperparameters import DefaultTemplate

FIXED_DATE = "01 January 2025"
"""Date for templates that print one: the same turns must render to the same prompt on every day."""

FIXED_CLOCK_MACRO = "{% macro strftime_now(format) %}" + FIXED_DATE + "{% endmacro +%}"
"""Prepended to a template; it hides the clock that transformers passes to templates."""

TURN_MARKER_PATTERN = re.compile(r"\[/?[A-Z_]{2,}\]|<[|｜/]?[^<>\s]{1,40}>")
"""Turn markers in a template's own text that are no control tokens of the tokenizer, such as `[/INST]`."""

ROLE_PATTERN = re.compile(r"^(\w+):", re.MULTILINE)
"""Turn markers of templates that name the speaker in plain text: `Assistant:`."""

SPEAKER_VARIABLE = "persona_name"
"""Variable of the plain template: the persona's name, empty where nobody is named."""

DEFAULT_TEMPLATES: dict[DefaultTemplate, str] = {
    "chatml": (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "plain": (
        "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
        "{% elif message['role'] == 'user' %}{{ ('' if persona_name else 'User: ') + message['content'] + '\\n' }}"
        "{% else %}{{ (persona_name or 'Assistant') + ': ' + message['content'] + eos_token + '\\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ (persona_name or 'Assistant') + ':' }}{% endif %}"
    ),
}
"""Templates for models without one. `chatml` is ChatML; `plain` has the facts, then lines of `name: text`, as in
PersonaChat, and ends replies with the model's end of text. With a persona, its turns' messages name their speakers."""

CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
MAX_CACHED_SPEAKERS = 256
REPLY_PROBE = "ANSWER-PROBE"
Message = dict[str, str]


class ChatTemplate:
    """Chat template of one tokenizer. Its properties are found by rendering probe messages.

    `has_system`: the template has a system role. `reply_prefix` stands before a reply's first word (a space, in some
    templates). `end_of_turn` follows a reply and `end_ids` are its tokens; each of `stop_ids` ends a reply. `speaker`
    is the persona's name for templates that print it
    (`prints_speaker`).
    """

    def __init__(self, tokenizer: Any, speaker: str = "") -> None:
        self._tokenizer, self._speaker = tokenizer, speaker
        self._template = FIXED_CLOCK_MACRO + tokenizer.get_chat_template()
        self.prints_speaker = SPEAKER_VARIABLE in self._template
        self._with_speaker = lru_cache(MAX_CACHED_SPEAKERS)(lambda name: ChatTemplate(tokenizer, name))
        rendered = self.render([_user("hello"), _assistant("well"), _user("hello")])
        markers = {*_special_tokens(tokenizer), *TURN_MARKER_PATTERN.findall(rendered)}
        self._control_tokens = sorted(markers, key=len, reverse=True)
        for token in self._control_tokens:
            rendered = rendered.replace(token, "\n")
        roles = "|".join([*ROLE_PATTERN.findall(rendered), *([re.escape(speaker)] if speaker else [])])
        self._role_pattern = re.compile(rf"^({roles or '(?!)'}):", re.MULTILINE)
        self.has_system = self._accepts_system()
        self.reply_prefix = self._probe_reply_prefix()
        self.end_of_turn = self._probe_end_of_turn()
        self.end_ids = tuple(self.encode(self.end_of_turn))
        single = self.end_ids if len(self.end_ids) == 1 else ()
        eos = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        self.stop_ids = tuple(dict.fromkeys((*single, *eos)))

    def for_speaker(self, name: str) -> "ChatTemplate":
        """Return the template with a persona's name; itself if it prints none."""
        name = " ".join(name.replace(":", " ").split())
        return self._with_speaker(name) if self.prints_speaker and name else self

    def render(self, messages: list[Message], add_generation_prompt: bool = True) -> str:
        """Render messages as text, with `add_generation_prompt` up to where a reply begins. Raises `TemplateError`."""
        rendered: str = self._tokenizer.apply_chat_template(
            messages,
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            date_string=FIXED_DATE,
            enable_thinking=False,
            persona_name=self._speaker,
        )
        return rendered

    def encode(self, text: str) -> list[int]:
        """Encode a text without adding special tokens."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def sanitise(self, text: str) -> str:
        """Strip the text and break up its control tokens."""
        return self.break_control_tokens(text.strip())

    def break_control_tokens(self, text: str) -> str:
        """Break up typed control tokens and turn markers in NFC text, so that it cannot end its own turn."""
        text = to_nfc(text)
        for token in self._control_tokens:
            text = text.replace(token, token[0] + " " + token[1:])
        return self._role_pattern.sub(r"\1 :", text)

    def _accepts_system(self) -> bool:
        try:
            messages = [{"role": "system", "content": "SYSTEM-PROBE"}, _user("hello")]
            return "SYSTEM-PROBE" in self.render(messages)
        except TemplateError:
            return False

    def _probe_reply_prefix(self) -> str:
        """Find the text before a reply's first word; empty where the tokenizer itself puts a space there."""
        opening = self.render([_user("hello")])
        conversation = self.render([_user("hello"), _assistant(REPLY_PROBE)], add_generation_prompt=False)
        before = conversation.rpartition(REPLY_PROBE)[0]
        prefix = before.removeprefix(opening)
        parts = self.encode(opening) + self.encode(prefix + REPLY_PROBE)
        return prefix if not prefix.strip() and parts == self.encode(before + REPLY_PROBE) else ""

    def _probe_end_of_turn(self) -> str:
        """Find the text after a reply up to its first control token, before any end of conversation."""
        conversation = [_user("hello"), _assistant(REPLY_PROBE)]
        after = self.render(conversation, add_generation_prompt=False).rpartition(REPLY_PROBE)[2].strip()
        found = [(after.find(token), -len(token)) for token in self._control_tokens if token in after]
        first, size = min(found, default=(len(after), 0))
        end: str = after[: first - size] or self._tokenizer.eos_token
        return end


def default_template_text(kind: DefaultTemplate, tokenizer: Any) -> str:
    """Return a default template for a tokenizer; it begins with the start token if the tokenizer itself adds that."""
    bos = tokenizer.bos_token_id
    begins = bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
    return ("{{ bos_token }}" if begins else "") + DEFAULT_TEMPLATES[kind]


def bind_speaker(template: str, name: str) -> str:
    """Fix the persona's name in a template, for programs that do not know it; others are unchanged."""
    if SPEAKER_VARIABLE not in template:
        return template
    return f"{{% set {SPEAKER_VARIABLE} = {json.dumps(name, ensure_ascii=False)} %}}{template}"


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _special_tokens(tokenizer: Any) -> list[str]:
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return [token for token in (*tokenizer.all_special_tokens, *added) if len(token) > 1]
