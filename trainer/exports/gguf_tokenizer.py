"""The tokenizer and chat template of a model, as GGUF stores them.

Two kinds: byte-level BPE, whose pre-tokenizer llama.cpp knows by name only, and BPE with bytes to fall back on, which
is how SentencePiece's tokenizers appear in `tokenizer.json`. Keys: docs/gguf.md of ggml.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from gguf import GGUFWriter, TokenType

from personas.contracts import Turn
from personas.prompt import FIXED_DATE, Renderer
from trainer.exports.errors import ExportError

Json = dict[str, Any]
Step = tuple[str, str]

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES, BYTES_AND_WORDS = ("ByteLevel", ""), ("ByteLevel", "gpt-2")
PRE_TOKENIZERS: dict[tuple[Step, ...], str] = {
    (BYTES_AND_WORDS,): "gpt-2",
    (("Digits", "each"), BYTES_AND_WORDS): "smollm",
    (("Split", LLAMA3), BYTES): "llama-bpe",
    (("Split", QWEN2), BYTES): "qwen2",
    (("Split", TEKKEN), BYTES): "tekken",
}
"""llama.cpp's names (src/llama-vocab.cpp) by the steps of `tokenizer.json`."""

CLOCK = re.compile(r"strftime_now\([^()]*\)")

NO_MERGE = -1e6
"""The score of a piece that no merge makes."""


@dataclass(frozen=True)
class Vocabulary:
    """What `tokenizer.ggml.*` says. `scores` belong to SentencePiece's kind, `merges` and `pre` to byte-level BPE."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None
    merges: list[str] | None
    space_prefix: bool


def vocabulary_of(tokenizer: Any, size: int) -> Vocabulary:
    """The vocabulary of a tokenizer, padded to the `size` rows of the model's embedding. Raises `ExportError`."""
    if not getattr(tokenizer, "is_fast", False):
        raise ExportError("This model's tokenizer has no tokenizer.json.", "Save it as a fast tokenizer first.")
    described: Json = json.loads(tokenizer.backend_tokenizer.to_str())
    model = described["model"]
    if model["type"] != "BPE":
        raise ExportError(f"GGUF of a {model['type']} tokenizer is not made here; BPE is.", "Export --to merged.")
    tokens, types = _tokens(described, size)
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in model["merges"]]
    if model.get("byte_fallback"):
        types = [
            TokenType.BYTE if kind == TokenType.NORMAL and _is_byte(token) else kind
            for token, kind in zip(tokens, types, strict=True)
        ]
        return Vocabulary("llama", "default", tokens, types, _scores(tokens, merges), None, _space_prefix(described))
    return Vocabulary(
        "gpt2", _pre_tokenizer(described), tokens, types, None, [" ".join(pair) for pair in merges], False
    )


def write_tokenizer(writer: GGUFWriter, renderer: Renderer, size: int) -> Vocabulary:
    """All of `tokenizer.*`. Returns the vocabulary that was written. Raises `ExportError`."""
    tokenizer = renderer.tokenizer
    held = vocabulary_of(tokenizer, size)
    writer.add_tokenizer_model(held.model)
    writer.add_tokenizer_pre(held.pre)
    writer.add_token_list(held.tokens)
    writer.add_token_types(held.types)
    if held.scores is not None:
        writer.add_token_scores(held.scores)
        writer.add_add_space_prefix(held.space_prefix)
    if held.merges is not None:
        writer.add_token_merges(held.merges)
    for add, number in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if number is not None:
            add(number)
    if len(renderer.end_ids) == 1:
        writer.add_eot_token_id(renderer.end_ids[0])
    writer.add_add_bos_token(begins_with_bos(renderer))
    writer.add_add_eos_token(False)
    writer.add_chat_template(fixed_template(tokenizer.get_chat_template()))
    return held


def begins_with_bos(renderer: Renderer) -> bool:
    """Whether prompts begin with a token that stands nowhere else in them, which llama.cpp then puts there itself."""
    bos = renderer.tokenizer.bos_token
    text = renderer.prompt(None, [Turn("", "1"), Turn("", "2", True), Turn("", "3")]).text
    return bool(bos) and text.startswith(bos) and text.count(bos) == 1


def fixed_template(template: str) -> str:
    """The chat template with what our prompts fix: the date, and no thinking aloud."""
    template, before = CLOCK.sub(f"'{FIXED_DATE}'", template), ""
    if "date_string" in template:
        before += f"{{% set date_string = '{FIXED_DATE}' %}}"
    if "enable_thinking" in template:
        before += "{% set enable_thinking = false %}"
    return before + template


def _tokens(described: Json, size: int) -> tuple[list[str], list[int]]:
    """Every token by its number, with its type. What the tokenizer does not know is padding."""
    unknown = described["model"].get("unk_token")
    tokens = {number: (token, TokenType.NORMAL) for token, number in described["model"]["vocab"].items()}
    for added in described["added_tokens"]:
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        tokens[added["id"]] = (added["content"], TokenType.UNKNOWN if added["content"] == unknown else kind)
    if max(tokens) >= size:
        raise ExportError(
            f"The tokenizer has {max(tokens) + 1} tokens, but the model embeds {size}.", "Check the base model."
        )
    padded = [tokens.get(number, (f"[PAD{number}]", TokenType.UNUSED)) for number in range(size)]
    return [token for token, _ in padded], [int(kind) for _, kind in padded]


def _scores(tokens: list[str], merges: list[tuple[str, ...]]) -> list[float]:
    """Scores by which llama.cpp merges in the order of the merges: it takes the pair whose whole scores highest."""
    rank: dict[str, int] = {}
    for number, pair in enumerate(merges):
        rank.setdefault("".join(pair), number)
    return [float(-rank[token]) if token in rank else NO_MERGE for token in tokens]


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _space_prefix(described: Json) -> bool:
    """Whether a space is put before the text."""
    steps = [*_flat(described.get("normalizer"), "normalizers"), *_flat(described["pre_tokenizer"], "pretokenizers")]
    return any(
        step["type"] == "Prepend" or (step["type"] == "Metaspace" and step.get("prepend_scheme") != "never")
        for step in steps
    )


def _pre_tokenizer(described: Json) -> str:
    steps = tuple(_step(step) for step in _flat(described["pre_tokenizer"], "pretokenizers"))
    if steps not in PRE_TOKENIZERS:
        shown = "; ".join(" ".join(step).strip() for step in steps)[:200] or "nothing"
        raise ExportError(
            f"llama.cpp has no known name for how this tokenizer splits text ({shown}).",
            f"Known are {', '.join(PRE_TOKENIZERS.values())}. Export --to merged, or --to gguf-lora.",
        )
    return PRE_TOKENIZERS[steps]


def _step(step: Json) -> Step:
    """One step of a pre-tokenizer, reduced to what decides."""
    match step:
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return BYTES_AND_WORDS if step.get("use_regex", True) else BYTES
        case {"type": "Digits", "individual_digits": True}:
            return "Digits", "each"
        case {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}:
            return "Split", _canonical(regex)
    return str(step["type"]), json.dumps(step, sort_keys=True)


def _canonical(regex: str) -> str:
    """The same regex in one spelling: some files write out the case of contractions."""
    return regex.replace("(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", CONTRACTIONS)


def _flat(step: Json | None, inner: str) -> list[Json]:
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [one for part in step[inner] for one in _flat(part, inner)]
    return [step]
