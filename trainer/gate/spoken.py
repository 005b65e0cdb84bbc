"""What the criteria look at of generated replies: voice, facts, manner."""

from __future__ import annotations

from collections.abc import Iterator

from personas.scorecard import Facts, FullScoreCard, Side, Spread, Voice
from trainer.gate.chance import of_shares
from trainer.gate.measure import DO_NOT, FEWER, MORE, SHARE, TIMES, Measure
from trainer.scorecard.spoken.answers import HELDOUT


def of_voice(voice: Voice | None, rival: Side) -> Iterator[Measure]:
    if voice is None:
        yield Measure("voice", "speaks in the persona's voice", SHARE, None, "No voice was measured.", at_least=True)
        return
    new, base = voice.right["new"].mean, voice.right["base"].mean
    said = voice.replies // len(voice.right)
    yield Measure(
        "voice",
        "speaks in the persona's voice",
        "of the ceiling",
        new / voice.ceiling if voice.ceiling else None,
        f"{new:.0%} of its replies are taken to be the persona's ({voice.ceiling:.0%} of the persona's real ones, "
        f"{base:.0%} of the base model's).",
        at_least=True,
        cases=said,
    )
    yield Measure(
        "voice_over_base",
        "nearer to the voice than the base model",
        SHARE,
        new - base,
        f"{new:.0%} of its replies are taken to be the persona's, of the base model's {base:.0%}.",
        at_least=True,
        cases=said,
    )
    if rival == "live" and "live" in voice.right:
        live = voice.right["live"]
        asked = voice.replies // max(1, sum(it.runs for it in voice.right.values()))
        yield Measure(
            "voice_kept",
            "voice no worse than the live version's",
            FEWER,
            live.mean - new,
            f"{new:.0%} of its replies are taken to be the persona's, of the live version's {live.mean:.0%}.",
            chance=of_shares(1 - new, 1 - live.mean, asked),
            cases=said,
        )


def of_facts(facts: Facts | None, rival: Side) -> Iterator[Measure]:
    if facts is None:
        return  # a persona without lore has none to know
    rival = rival if rival in facts.right_with_lore else "base"
    asked, right, wrong = facts.questions, facts.right_with_lore, facts.contradictions
    whose = "the live version" if rival == "live" else "the base model"
    yield Measure(
        "facts",
        "knows the lore",
        FEWER,
        right[rival] - right["new"],
        f"It answers {right['new']:.0%} of {asked} questions from the lore rightly, {whose} {right[rival]:.0%}.",
        chance=of_shares(1 - right["new"], 1 - right[rival], asked),
        cases=asked,
    )
    yield Measure(
        "contradictions",
        "does not contradict the lore",
        MORE,
        wrong["new"] - wrong[rival],
        f"{wrong['new']:.0%} of its answers contradict the lore, {wrong[rival]:.0%} of those of {whose}.",
        chance=of_shares(wrong["new"], wrong[rival], asked),
        cases=asked,
    )
    yield Measure(
        "in_character",
        "stays in character",
        DO_NOT,
        facts.breaks_character["new"],
        f"{facts.breaks_character['new']:.1%} of its replies break character.",
        cases=asked,
    )


def of_texts(card: FullScoreCard) -> Iterator[Measure]:
    scores = next((it.scores for it in card.text if it.task == HELDOUT), {})

    def new(name: str) -> float | None:
        by_side: dict[Side, Spread] = scores.get(name, {})
        return by_side["new"].mean if "new" in by_side else None

    ratio, again, ended = new("length_ratio"), new("repetition"), new("ended")
    if ratio is not None:
        times = max(ratio, 1 / ratio) if ratio else float("inf")
        yield Measure(
            "length",
            "as long as real replies",
            TIMES,
            times,
            f"Its replies have {ratio:.2f} words for each word of the real ones.",
        )
    if again is not None:
        yield Measure(
            "repetition",
            "does not repeat itself",
            SHARE,
            again,
            f"{again:.1%} of its runs of four words stood in the same reply before.",
        )
    if ended is not None:
        yield Measure(
            "ends",
            "ends its replies",
            SHARE,
            ended,
            f"{ended:.0%} of its replies end by themselves.",
            at_least=True,
        )
