"""Writes a tokenizer's vocabulary and chat template into a GGUF file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from gguf import GGUFWriter, TokenType

from personas.errors import ExportError
from personas.prompt.renderer import Renderer
from personas.schemas.chat import Turn

Json = dict[str, Any]
Step = tuple[str, str]
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3_REGEX = (
    CONTRACTIONS
    + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_REGEX = LLAMA3_REGEX.replace(r"\p{N}{1,3}", r"\p{N}")
UPPER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
LOWER = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
TEKKEN_REGEX = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = ("ByteLevel", "")
BYTES_AND_WORDS = ("ByteLevel", "gpt-2")
PRE_TOKENIZERS: dict[tuple[Step, ...], str] = {
    (BYTES_AND_WORDS,): "gpt-2",
    (("Digits", "each"), BYTES_AND_WORDS): "smollm",
    (("Split", LLAMA3_REGEX), BYTES): "llama-bpe",
    (("Split", QWEN2_REGEX), BYTES): "qwen2",
    (("Split", TEKKEN_REGEX), BYTES): "tekken",
}
"""llama.cpp's names (src/llama-vocab.cpp) by the steps of `tokenizer.json`."""
UNMERGED_SCORE = -1e6  # the score of a piece that no merge makes


@dataclass(frozen=True)
class GgufVocabulary:
    """The values of `tokenizer.ggml.*`. `scores` are for SentencePiece, `merges` and `pre` for
    byte-level BPE.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None
    merges: list[str] | None
    space_prefix: bool


def build_vocabulary(tokenizer: Any, size: int) -> GgufVocabulary:
    """Build a tokenizer's vocabulary, padded to the `size` rows of the embedding. Raises
    `ExportError`.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ExportError(
            "This model's tokenizer has no tokenizer.json.", "Save it as a fast tokenizer first."
        )
    described: Json = json.loads(tokenizer.backend_tokenizer.to_str())
    model = described["model"]
    if model["type"] != "BPE":
        raise ExportError(
            f"GGUF of a {model['type']} tokenizer is not made here; BPE is.", "Export --to merged."
        )
    tokens, types = _tokens(described, size)
    merges: list[tuple[str, ...]] = []
    for pair in model["merges"]:
        # Older files of `tokenizers` have both pieces in one text.
        merges.append(tuple(pair if isinstance(pair, list) else pair.split(" ")))
    if model.get("byte_fallback"):
        for place, token in enumerate(tokens):
            if types[place] == TokenType.NORMAL and _is_byte(token):
                types[place] = TokenType.BYTE
        return GgufVocabulary(
            model="llama",
            pre="default",
            tokens=tokens,
            types=types,
            scores=_scores(tokens, merges),
            merges=None,
            space_prefix=_space_prefix(described),
        )
    return GgufVocabulary(
        model="gpt2",
        pre=_pre_tokenizer(described),
        tokens=tokens,
        types=types,
        scores=None,
        merges=[" ".join(pair) for pair in merges],
        space_prefix=False,
    )


def write_tokenizer(writer: GGUFWriter, renderer: Renderer, size: int) -> None:
    """Write all of `tokenizer.*`. Raises `ExportError`."""
    tokenizer = renderer.tokenizer
    vocabulary = build_vocabulary(tokenizer, size)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.space_prefix)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    for name in ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id"):
        number = getattr(tokenizer, name)
        if number is not None:
            getattr(writer, f"add_{name}")(number)
    # The format has room for one token.
    if len(renderer.end_ids) == 1:
        writer.add_eot_token_id(renderer.end_ids[0])
    writer.add_add_bos_token(begins_with_bos(renderer))
    writer.add_add_eos_token(False)
    writer.add_chat_template(renderer.frozen_template())


def begins_with_bos(renderer: Renderer) -> bool:
    """Report whether prompts begin with a token that occurs nowhere else in them, which llama.cpp
    adds itself.
    """
    bos = renderer.tokenizer.bos_token
    text = renderer.prompt(None, [Turn("", "1"), Turn("", "2", True), Turn("", "3")]).text
    return bool(bos) and text.startswith(bos) and text.count(bos) == 1


def _tokens(described: Json, size: int) -> tuple[list[str], list[int]]:
    """Return every token by id, with its type; ids unknown to the tokenizer are padding."""
    unknown = described["model"].get("unk_token")
    known: dict[int, tuple[str, TokenType]] = {}
    for token, number in described["model"]["vocab"].items():
        known[number] = (token, TokenType.NORMAL)
    # An added token may stand in the vocabulary, too: the later statement says more.
    for added in described["added_tokens"]:
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        if added["content"] == unknown:
            kind = TokenType.UNKNOWN
        known[added["id"]] = (added["content"], kind)
    if max(known) >= size:
        mismatch = f"The tokenizer has {max(known) + 1} tokens, but the model embeds {size}."
        raise ExportError(mismatch, "Check the base model.")
    tokens: list[str] = []
    types: list[int] = []
    for number in range(size):
        token, kind = known.get(number, (f"[PAD{number}]", TokenType.UNUSED))
        tokens.append(token)
        types.append(int(kind))
    return tokens, types


def _scores(tokens: list[str], merges: list[tuple[str, ...]]) -> list[float]:
    """Return scores that reproduce the order of merges: llama.cpp merges the pair with the highest
    score.
    """
    scores: dict[str, float] = {}
    for number, pair in enumerate(merges):
        scores.setdefault("".join(pair), float(-number))
    return [scores.get(token, UNMERGED_SCORE) for token in tokens]


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _space_prefix(described: Json) -> bool:
    """Report whether a space is prepended to the text."""
    steps = _flat(described.get("normalizer"), "normalizers")
    steps += _flat(described["pre_tokenizer"], "pretokenizers")
    for step in steps:
        if step["type"] == "Prepend":
            return True
        if step["type"] == "Metaspace" and step.get("prepend_scheme") != "never":
            return True
    return False


def _pre_tokenizer(described: Json) -> str:
    steps = tuple(_step(step) for step in _flat(described["pre_tokenizer"], "pretokenizers"))
    if steps not in PRE_TOKENIZERS:
        shown = "; ".join(" ".join(step).strip() for step in steps)[:200] or "nothing"
        raise ExportError(
            f"llama.cpp has no known name for how this tokenizer splits text ({shown}).",
            f"Known are {', '.join(PRE_TOKENIZERS.values())}. Export --to merged, or --to "
            "gguf-lora.",
        )
    return PRE_TOKENIZERS[steps]


def _step(step: Json) -> Step:
    """Reduce a pre-tokenizer step to its relevant fields."""
    match step:
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return BYTES_AND_WORDS if step.get("use_regex", True) else BYTES
        case {"type": "Digits", "individual_digits": True}:
            return "Digits", "each"
        case {
            "type": "Split",
            "pattern": {"Regex": regex},
            "behavior": "Isolated",
            "invert": False,
        }:
            return "Split", _canonical(regex)
    return str(step["type"]), json.dumps(step, sort_keys=True)


def _canonical(regex: str) -> str:
    """Normalise a regex's spelling: some files write out the case of contractions."""
    return regex.replace("(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", CONTRACTIONS)


def _flat(step: Json | None, inner: str) -> list[Json]:
    """Return the steps of a sequence, which may be nested, or the single step."""
    if step is None:
        return []
    if step["type"] != "Sequence":
        return [step]
    steps: list[Json] = []
    for part in step[inner]:
        steps += _flat(part, inner)
    return steps
