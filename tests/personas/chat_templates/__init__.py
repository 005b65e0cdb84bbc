"""Chat templates of model families: facts about how each writes a conversation, and templates built
from them.
"""

from __future__ import annotations

import importlib.util
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

FACTS_FILE = Path(__file__).with_name("families.toml")
TRAINING_SUFFIX = "_training"
"""Of TRL's variants for training, which are no template of a model."""
CLOSE_VARIANTS = frozenset(
    "gemma4 gemma4_v2 gemma4_v3 gemma4_v4 diffusion_gemma nemotron_3_super nemotron_3_ultra "
    "nemotron_3_nano "
    "lfm2_2_5_v2 lfm2_2_5_vl lfm2_2_5 qwen3_5_nothink qwen3_6 qwen2_5_vl".split()
)
INSTALLED: dict[str, dict[str, str]] = {
    "gptoss": {"prefix": "<|channel|>final<|message|>", "end": "<|return|>"},
    "muse_glimmer": {"prefix": " to=user<|message|>", "end": "<|eot|>"},
    "cohere2": {"end": "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"},
    "deepseek_r1_distill": {"prefix": "\n</think>\n\n", "thought": "<think>\n\n</think>\n\n"},
    "deepseekv3": {"prefix": "\n</think>\n\n", "thought": "<think>\n\n</think>\n\n"},
    "glm4moe": {"end": "<|user|>"},
    "phi3": {"end": "<|end|>"},
    "llama3_2": {"end": "<|eot_id|>"},
}
"""What the renderer has to find in templates that ask for more than a role's header."""


@dataclass(frozen=True)
class TemplateFamily:
    """A family's chat template with the tokens it uses. `end` and `prefix` are what the renderer
    has to find.

    `thought` is an empty thought in the prompt that the template itself does not write.
    `drops_system`: it writes the system text in the last message alone, so not where a reply
    follows.
    """

    name: str
    template: str
    bos: str = ""
    eos: str = "</s>"
    tokens: tuple[str, ...] = ()
    end: str | None = None
    prefix: str = ""
    thought: str = ""
    drops_system: bool = False

    @property
    def special_tokens(self) -> list[str]:
        """All control tokens."""
        return [token for token in dict.fromkeys((self.bos, self.eos, *self.tokens)) if token]


@dataclass(frozen=True)
class _Facts:
    """How a family writes a conversation: the texts around each part. See `families.toml`."""

    name: str
    source: str
    user: tuple[str, str]
    reply: tuple[str, str]
    generation: str
    start: str = ""
    system: tuple[str, str] | None = None
    system_in: str = "own"
    default_system: str = ""
    last_reply: tuple[str, str] | None = None
    finish: str = ""
    quiet_generation: str | None = None
    quiet_variable: str = "enable_thinking"
    alternates: bool = False
    bos: str = ""
    eos: str = "</s>"
    tokens: tuple[str, ...] = ()
    end: str | None = None
    prefix: str = ""
    thought: str = ""


def stored_families() -> list[TemplateFamily]:
    """Return the families of `families.toml`."""
    rows = tomllib.loads(FACTS_FILE.read_text(encoding="utf-8"))["family"]
    return [_family(_Facts(**{key: _frozen(value) for key, value in row.items()})) for row in rows]


def installed_families() -> list[TemplateFamily]:
    """Return the models' own templates in the installed TRL, by file name; of close variants,
    one.
    """
    spec = importlib.util.find_spec("trl")
    assert spec is not None and spec.origin is not None
    files = sorted((Path(spec.origin).parent / "chat_templates").glob("*.jinja"))
    own = [
        file
        for file in files
        if not file.stem.endswith(TRAINING_SUFFIX) and file.stem not in CLOSE_VARIANTS
    ]
    return [
        TemplateFamily(
            f"trl {file.stem}",
            file.read_text(encoding="utf-8"),
            bos="<s>",
            **INSTALLED.get(file.stem, {}),
        )
        for file in own
    ]


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _family(it: _Facts) -> TemplateFamily:
    return TemplateFamily(
        it.name,
        _template(it),
        bos=it.bos,
        eos=it.eos,
        tokens=it.tokens,
        end=it.end,
        prefix=it.prefix,
        thought=it.thought,
        drops_system=it.system_in == "last",
    )


def _template(it: _Facts) -> str:
    """Build a template from its facts."""
    system = _print("{before} + system + {after}", *(it.system or ("", "")))
    middle, last = (
        _print("{before} + message['content'] + {after}", *pair)
        for pair in (it.reply, it.last_reply or it.reply)
    )
    alternation = "(message['role'] == 'user') != (loop.index0 % 2 == 0)"
    quiet = f"{it.quiet_variable} is defined and not {it.quiet_variable}"
    parts = [
        f"{{% set system = {_clock(it.default_system)} %}}{{% set talk = messages %}}",
        "{% if messages[0]['role'] == 'system' %}",
        "{{ raise_exception('no system role') }}" if it.system is None else "",
        "{% set system = messages[0]['content'] %}{% set talk = messages[1:] %}{% endif %}",
        _print(_text(it.start)),
        _if("system", system) if it.system_in == "own" else "",
        "{% for message in talk %}",
        _if(alternation, "{{ raise_exception('roles alternate') }}") if it.alternates else "",
        "{% if message['role'] == 'user' %}",
        _print(_text(it.user[0])),
        _if("loop.first and system", system) if it.system_in == "first" else "",
        _if("loop.last and system", system) if it.system_in == "last" else "",
        _print(f"message['content'] + {_text(it.user[1])}"),
        f"{{% elif loop.last %}}{last}{{% else %}}{middle}{{% endif %}}{{% endfor %}}",
        "{% if not add_generation_prompt %}" + _print(_text(it.finish)),
        ""
        if it.quiet_generation is None
        else f"{{% elif {quiet} %}}{_print(_text(it.quiet_generation))}",
        "{% else %}" + _print(_text(it.generation)) + "{% endif %}",
    ]
    return "".join(parts)


def _print(expression: str, before: str = "", after: str = "") -> str:
    filled = expression.replace("{before}", _text(before)).replace("{after}", _text(after))
    return f"{{{{ {filled} }}}}"


def _if(condition: str, text: str) -> str:
    return f"{{% if {condition} %}}{text}{{% endif %}}"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _clock(text: str) -> str:
    """Return an expression of a text in which `{today}` is today's date."""
    before, today, after = text.partition("{today}")
    return f"{_text(before)} + strftime_now('%d %B %Y') + {_text(after)}" if today else _text(text)
