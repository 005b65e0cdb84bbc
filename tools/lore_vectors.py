"""Computes the vectors that ship with the lore (`python -m tools.lore_vectors`; some seconds)."""

import tempfile
from pathlib import Path

from bot.personas.guild_lore import read_all_lore
from personas.card.toml_card import SHIPPED_CARDS, read_cards
from personas.home.job_material import ShippedData
from personas.lore.minilm import load_minilm
from personas.lore.semantic import SMALL_TALK, embedding_units, unit_key
from personas.lore.shipped_vectors import SHIPPED_VECTORS, write_shipped_vectors


def shipped_units() -> dict[str, str]:
    """Return all texts by their keys: the units of the shipped lore, and small talk."""
    shipped = ShippedData.from_source_tree()
    with tempfile.TemporaryDirectory() as home:
        passages = read_all_lore(shipped.lore, read_cards(SHIPPED_CARDS), Path(home))
    texts = [*SMALL_TALK]
    for units in embedding_units(passages):
        texts += units
    return {unit_key(text): text for text in texts}


def main() -> None:
    """Write the file."""
    units = shipped_units()
    vectors = load_minilm().embed([*units.values()])
    write_shipped_vectors(dict(zip(units, vectors, strict=True)))
    print(f"{len(units)} vectors in {SHIPPED_VECTORS}")


if __name__ == "__main__":
    main()
