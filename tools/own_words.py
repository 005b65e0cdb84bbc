"""Computes the vectors of the shipped personas' own words (`python -m tools.own_words`; a minute)."""

from bot.personas.own_words import SHIPPED_WORDS
from personas.words.exchanges import read_exchanges
from personas.words.index import write_vectors


def main() -> None:
    """Write a file of vectors beside each file of exchanges."""
    for path in sorted(SHIPPED_WORDS.glob("*.jsonl")):
        exchanges = read_exchanges(path)
        vectors = path.with_suffix(".npz")
        write_vectors(vectors, exchanges)
        print(f"{len(exchanges)} exchanges, {vectors.stat().st_size / 1e6:.1f} MB in {vectors}")


if __name__ == "__main__":
    main()
