"""Generates labelled texts by seed."""

from random import Random

from benchmarks.studies.pii_heldout.kinds import KINDS
from benchmarks.studies.pii_heldout.writing.filling import fill_template, merge_plain
from benchmarks.studies.pii_heldout.writing.habits import apply_habit
from benchmarks.studies.pii_heldout.writing.pieces import LabelledText, Piece, join_pieces
from benchmarks.studies.pii_heldout.writing.slots import FillingContext
from benchmarks.studies.pii_heldout.writing.templates import TextKind

OTHER_LANGUAGES = ("de", "fr", "es", "it", "nl", "no", "pl", "pt", "el", "ja", "zh", "ko")
"""Languages of a fifth of the texts; the rest are English."""

ENGLISH_SHARE = 5
"""One text in so many is not English."""

ADDED_NEUTRAL_RATE = 0.35
"""Share of texts that go on with a second, neutral template."""

MAX_DRAWS = 20
"""Draws until a text is allowed to repeat."""


def generate_texts(seed: int, count: int) -> list[LabelledText]:
    """Returns `count` texts; the same seed and count always give the same.

    Half have no personal data. Kinds, languages and halves alternate, then all are shuffled.
    """
    rng = Random(seed)  # nosec B311  # repeatable
    known: set[str] = set()
    texts = []
    for place in range(count):
        language, kind, personal = _plan(place, rng)
        for _ in range(MAX_DRAWS):
            drawn = draw_text(kind, language, personal=personal, rng=rng)
            if drawn["text"] not in known:
                break
        known.add(drawn["text"])
        texts.append(drawn)
    rng.shuffle(texts)
    return texts


def _plan(place: int, rng: Random) -> tuple[str, TextKind, bool]:
    group, member = divmod(place, ENGLISH_SHARE)
    if member == ENGLISH_SHARE - 1:
        round_number, language_number = divmod(group, len(OTHER_LANGUAGES))
        language = OTHER_LANGUAGES[language_number]
        kinds = [kind for kind in KINDS if language in kind.templates]
        return language, rng.choice(kinds), (round_number + language_number) % 2 == 0
    english = group * (ENGLISH_SHARE - 1) + member
    round_number, kind_number = divmod(english, len(KINDS))
    return "en", KINDS[kind_number], (round_number + kind_number) % 2 == 0


def draw_text(kind: TextKind, language: str, *, personal: bool, rng: Random) -> LabelledText:
    """Returns a text of the kind in the language, with personal data or without."""
    context = FillingContext(language, rng)
    blocks = kind.templates[language].blocks(personal)
    number = rng.randrange(len(blocks))
    template = blocks[number]
    pieces = fill_template(template, context)
    if rng.random() < ADDED_NEUTRAL_RATE:
        others = [block for block in kind.templates[language].blocks(False) if block != template]
        added = fill_template(rng.choice(others), context)
        joint = Piece(rng.choice(("\n", "\n\n")))
        pieces = [*pieces, joint, *added] if rng.random() < 0.6 else [*added, joint, *pieces]
    text, spans = join_pieces(apply_habit(merge_plain(pieces), kind.casual, rng))
    half = "personal" if personal else "neutral"
    return {
        "text": text,
        "spans": spans,
        "kind": kind.name,
        "language": language,
        "template": f"{kind.name}/{language}/{half}/{number}",
    }
