"""Renders messages with a model's chat template and probes its control tokens."""

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal

from jinja2 import TemplateError

from personas.schemas.chat import to_nfc

DefaultTemplate = Literal["chatml", "plain"]
FIXED_DATE = "01 January 2025"
"""Date for templates that print one: the same turns must render to the same prompt on every day."""

FIXED_VARIABLES: dict[str, str | bool] = {
    "date_string": FIXED_DATE,
    "enable_thinking": False,
    "thinking": False,
    "reasoning": False,
}
"""Variables of chat templates that the renderer fixes: no date of today, and no thoughts (Qwen3,
DeepSeek-V3.1 and Granite, Command A Reasoning).
"""

FIXED_CLOCK_MACRO = "{% macro strftime_now(format) %}" + FIXED_DATE + "{% endmacro +%}"
"""Prepended to a template; it hides the clock that transformers passes to templates."""

STRFTIME_PATTERN = re.compile(r"strftime_now\([^()]*\)")
TURN_MARKER_PATTERN = re.compile(r"\[/?[A-Z_]{2,}\]|<[|｜/]?[^<>\s]{1,40}>")
"""Turn markers in a template's own text that are no control tokens of the tokenizer, such as
`[/INST]`.
"""

OPEN_THOUGHT_PATTERN = re.compile(
    r"(?:<(?P<tag>[\w:]+)>|<\|START_(?P<upper>\w+)\|>|\[(?P<bracket>[A-Z_]+)\])(?P<blank>\s*)\Z"
)
"""A thought that a template opens for the model: `<think>`, `<|START_THINKING|>`, `[THINK]`."""

ROLE_PATTERN = re.compile(r"^(\w+):", re.MULTILINE)
"""Turn markers of templates that name the speaker in plain text: `Assistant:`."""

SPEAKER_VARIABLE = "persona_name"
"""Variable of the plain template: the persona's name, empty where nobody is named."""

DEFAULT_TEMPLATES: dict[DefaultTemplate, str] = {
    "chatml": (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% "
        "endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "plain": (
        "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] + "
        "'\\n\\n' }}"
        "{% elif message['role'] == 'user' %}{{ ('' if persona_name else 'User: ') + "
        "message['content'] + '\\n' }}"
        "{% else %}{{ (persona_name or 'Assistant') + ': ' + message['content'] + eos_token + "
        "'\\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ (persona_name or 'Assistant') + ':' }}{% "
        "endif %}"
    ),
}
"""Templates for models without one. `chatml` is ChatML; `plain` has the facts, then lines of `name:
text`, as in PersonaChat, and ends replies with the model's end of text. With a persona, its turns'
messages name their speakers.
"""

CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
MAX_CACHED_SPEAKERS = 256
REPLY_PROBE = "ANSWER-PROBE"
Message = dict[str, str]


class ChatTemplate:
    """Chat template of one tokenizer. Its properties are found by rendering probe messages.

    `has_system`: the template has a system role. `may_open`: the assistant may speak first.
    `reply_prefix` stands between the generation prompt and a reply's first word: a blank in some
    templates, a channel or an empty thought in others (`forces_prefix`), which prompts then end
    with. `end_of_turn` follows a reply and `end_ids` are its tokens; each of `stop_ids` ends a
    reply. `speaker` is the persona's name for templates that print it (`prints_speaker`).
    `takes_parts`: the template reads contents that are lists of parts, as those of multimodal
    models.
    """

    def __init__(self, tokenizer: Any, speaker: str = "") -> None:
        self._tokenizer = tokenizer
        self._speaker = speaker
        self._own: str = tokenizer.get_chat_template()
        self._template = FIXED_CLOCK_MACRO + self._own
        self.prints_speaker = SPEAKER_VARIABLE in self._template
        self._with_speaker = lru_cache(MAX_CACHED_SPEAKERS)(
            lambda name: ChatTemplate(tokenizer, name)
        )
        self.takes_parts = False
        self.takes_parts = not self._keeps([_user(REPLY_PROBE)])
        rendered = self.render([_user("hello"), _assistant("well"), _user("hello")])
        markers = {*_special_tokens(tokenizer), *TURN_MARKER_PATTERN.findall(rendered)}
        self._control_tokens = sorted(markers, key=len, reverse=True)
        for token in self._control_tokens:
            rendered = rendered.replace(token, "\n")
        roles = ROLE_PATTERN.findall(rendered)
        if speaker:
            roles.append(re.escape(speaker))
        any_role = "|".join(roles) or "(?!)"  # without roles, a pattern that matches nothing
        self._role_pattern = re.compile(rf"^({any_role}):", re.MULTILINE)
        self.has_system = self._keeps([_system(REPLY_PROBE), _user("hello")])
        self.may_open = self._keeps([_assistant(REPLY_PROBE), _user("hello")])
        # Without a forced prefix, such as gpt-oss's final channel, an untrained model's analysis
        # would become the reply.
        self.reply_prefix = self._probe_reply_prefix()
        self.forces_prefix = bool(self.reply_prefix.strip())
        self.end_of_turn = self._probe_end_of_turn()
        self.end_ids = tuple(self.encode(self.end_of_turn))
        stop_ids: list[int] = []
        # An end of turn of several tokens that is plain text begins as other texts do.
        is_control = self.end_of_turn.startswith(tuple(_special_tokens(tokenizer)))
        if is_control or len(self.end_ids) == 1:
            stop_ids += self.end_ids[:1]
        if tokenizer.eos_token_id is not None:
            stop_ids.append(tokenizer.eos_token_id)
        # Set by `personas.models.loading.read_tokenizer`.
        stop_ids += getattr(tokenizer, "end_token_ids", ())
        self.stop_ids = tuple(dict.fromkeys(stop_ids))

    def for_speaker(self, name: str) -> "ChatTemplate":
        """Return the template with a persona's name; itself if it prints none."""
        name = " ".join(name.replace(":", " ").split())
        if not self.prints_speaker or not name:
            return self
        return self._with_speaker(name)

    def render(self, messages: list[Message], add_generation_prompt: bool = True) -> str:
        """Render messages as text, with `add_generation_prompt` up to where a reply begins. Raises
        `TemplateError`.
        """
        rendered: str = self._tokenizer.apply_chat_template(
            self.as_given(messages),
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            persona_name=self._speaker,
            **FIXED_VARIABLES,
        )
        return rendered

    def as_given(self, messages: list[Message]) -> list[Any]:
        """Return messages in the form that the template reads: with a text as content, or with
        parts.
        """
        if not self.takes_parts:
            return messages
        return [_with_parts(message) for message in messages]

    def opening(self, messages: list[Message]) -> str:
        """Render a prompt: the messages up to a reply's first word, with the prefix that is
        forced.
        """
        opening = self.render(messages)
        if self.forces_prefix:
            opening += self.reply_prefix
        return opening

    def frozen(self, *, with_prefix: bool = True) -> str:
        """Return the template for other programs: it renders the same prompts there, with no
        variable, on any day.

        `with_prefix`: prompts end with a forced prefix.
        """
        template = bind_speaker(self._own, self._speaker)
        template = STRFTIME_PATTERN.sub(f"'{FIXED_DATE}'", template).removesuffix("\n")
        before = ""
        for name, value in FIXED_VARIABLES.items():
            if re.search(rf"(?<![.\w'\"]){name}\b", template):
                before += f"{{% set {name} = {json.dumps(value)} %}}"
        if before and template.startswith("\n"):  # Jinja drops a line end after a block
            before += "\n"
        template = before + template
        if with_prefix and self.forces_prefix:
            prefix = json.dumps(self.reply_prefix)
            template += f"{{% if add_generation_prompt %}}{{{{ {prefix} }}}}{{% endif %}}"
        return template

    def encode(self, text: str) -> list[int]:
        """Encode a text without adding special tokens."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def sanitise(self, text: str) -> str:
        """Strip the text and break up its control tokens."""
        return self.break_control_tokens(text.strip())

    def break_control_tokens(self, text: str) -> str:
        """Break up typed control tokens and turn markers in NFC text, so that it cannot end its own
        turn.
        """
        text = to_nfc(text)
        for token in self._control_tokens:
            text = text.replace(token, token[0] + " " + token[1:])
        return self._role_pattern.sub(r"\1 :", text)

    def _keeps(self, messages: list[Message]) -> bool:
        """Report whether the template accepts messages and renders the probe in them."""
        try:
            return REPLY_PROBE in self.render(messages)
        except (TemplateError, TypeError):
            return False

    def _probe_reply_prefix(self) -> str:
        """Find the text before a reply's first word; empty where the tokenizer itself puts a space
        there.

        A thought that the generation prompt opens and replies do not have is closed at once.
        """
        opening = self.render([_user("hello")])
        talk = [_user("hello"), _assistant(REPLY_PROBE)]
        conversation = self.render(talk, add_generation_prompt=False)
        before = conversation.rpartition(REPLY_PROBE)[0]
        if not before.startswith(opening):
            common = 0
            for written, opened in zip(before, opening, strict=False):
                if written != opened:
                    break
                common += 1
            closing = _close_thought(opening[common:])
            if not closing:
                return ""
            return closing + before[common:]
        prefix = before.removeprefix(opening)
        if prefix.strip(" "):
            return prefix
        # A blank is kept where prompt and reply, encoded apart, have the tokens of the whole.
        parts = self.encode(opening) + self.encode(prefix + REPLY_PROBE)
        if parts == self.encode(before + REPLY_PROBE):
            return prefix
        return ""

    def _probe_end_of_turn(self) -> str:
        """Find the text after a reply through its control tokens, before any end of conversation.

        Further tokens that follow the first one at once, as in Command A, belong to it where they
        also stand in the middle of a conversation. A template that ends no reply, as GLM's, has the
        next turn's token there.
        """
        conversation = [_user("hello"), _assistant(REPLY_PROBE)]
        rendered = self.render(conversation, add_generation_prompt=False)
        after = rendered.rpartition(REPLY_PROBE)[2].strip()
        middle = self.render([*conversation, _user("hello")]).partition(REPLY_PROBE)[2].lstrip()
        # The first control token; of two at one place, the longer one.
        places = []
        for token in self._control_tokens:
            if token in after:
                places.append((after.find(token), -len(token)))
        if not places:
            next_turn = _leading_token(middle, _special_tokens(self._tokenizer))
            return after or next_turn or str(self._tokenizer.eos_token)
        start, negative_length = min(places)
        end_at = start - negative_length
        while following := _leading_token(after[end_at:], self._control_tokens):
            if not middle.startswith(after[:end_at] + following):
                break
            end_at += len(following)
        return after[:end_at]


def break_turn_markers_in(text: str) -> str:
    """Break up what looks like a control token of any model in a text."""

    def break_up(marker: re.Match[str]) -> str:
        return f"{marker[0][0]} {marker[0][1:]}"

    return re.sub(TURN_MARKER_PATTERN, break_up, text)


def default_template_text(kind: DefaultTemplate, tokenizer: Any) -> str:
    """Return a default template for a tokenizer; it begins with the start token if the tokenizer
    itself adds that.
    """
    bos = tokenizer.bos_token_id
    template = DEFAULT_TEMPLATES[kind]
    if bos is not None and tokenizer("a")["input_ids"][:1] == [bos]:
        template = "{{ bos_token }}" + template
    return template


def bind_speaker(template: str, name: str) -> str:
    """Fix the persona's name in a template, for programs that do not know it; others are
    unchanged.
    """
    if SPEAKER_VARIABLE not in template:
        return template
    return f"{{% set {SPEAKER_VARIABLE} = {json.dumps(name, ensure_ascii=False)} %}}{template}"


def _leading_token(text: str, tokens: Iterable[str]) -> str:
    """Return the first of the tokens that the text begins with; empty if there is none."""
    for token in tokens:
        if text.startswith(token):
            return token
    return ""


def _close_thought(opened: str) -> str:
    """Return the closing tag of a thought that a generation prompt opens; empty for other text."""
    match = OPEN_THOUGHT_PATTERN.search(opened)
    if not match:
        return ""
    tag, upper, bracket, blank = match.group("tag", "upper", "bracket", "blank")
    closing = f"[/{bracket}]"
    if tag:
        closing = f"</{tag}>"
    elif upper:
        closing = f"<|END_{upper}|>"
    if blank:  # a tag on a line of its own is closed on one
        return f"\n{closing}\n\n"
    return closing


def _with_parts(message: Message) -> dict[str, Any]:
    """Return a message for templates of multimodal models, which read the text of parts alone."""
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def _system(text: str) -> Message:
    return {"role": "system", "content": text}


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _special_tokens(tokenizer: Any) -> list[str]:
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return [token for token in (*tokenizer.all_special_tokens, *added) if len(token) > 1]
