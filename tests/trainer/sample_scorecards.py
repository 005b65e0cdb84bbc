"""A score card of a good version, to be made worse in one thing at a time."""

from __future__ import annotations

from typing import Any

from personas.schemas.base import FrozenModel
from personas.schemas.scorecard import (
    LORE_FOUND,
    LORE_RIGHT,
    AdapterStamp,
    BoundedShares,
    DataChecks,
    FactScores,
    GeneralScores,
    HoldoutScores,
    Interval,
    LossCurve,
    MeanStd,
    MemberFeedback,
    MemorisationScores,
    ReplyCounts,
    ReplyText,
    SafetyScores,
    ScoreCard,
    Separation,
    SideBySide,
    VoiceScores,
)

RECIPE = "demo-cpu"


def interval(estimate: float, half: float = 0.02) -> Interval:
    """An estimate in the middle of its interval."""
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half)


def spread(mean: float) -> MeanStd:
    """Of three runs."""
    return MeanStd(mean=mean, sd=0.01, runs=3)


def good_card(**changes: Any) -> ScoreCard:
    """A card that is promoted. `changes` maps sections to changes of their fields, or to None or
    another whole.
    """
    sides = ("base", "live", "new")
    made = {
        side: None if side == "base" else AdapterStamp(version=f"v-{side}", weights=side * 4)
        for side in sides
    }
    sections: dict[str, Any] = {
        "heldout": HoldoutScores(
            conversations=20,
            replies=40,
            tokens=1200,
            loss={"base": 3.0, "live": 2.1, "new": 2.0},
            loss_without_end={"base": 3.1, "live": 2.2, "new": 2.1},
            against_base=interval(-1.0),
            against_live=interval(-0.1),
        ),
        "separation": Separation(
            replies=80,
            loss={"ada": {"ada": 2.0, "bob": 2.9}, "bob": {"ada": 3.0, "bob": 2.0}},
            own_best=0.98,
            own_best_new=0.97,
            margin_bits=interval(0.8, 0.1),
        ),
        "voice": VoiceScores(
            replies=360,
            classes=("ada", "bob", "general", "members"),
            right={"base": spread(0.4), "live": spread(0.85), "new": spread(0.9)},
            ceiling=0.98,
            floor=0.02,
            taken_as={"new": {"ada": 0.9, "general": 0.06, "members": 0.04}},
            trained_as={"ada": 0.96, "members": 0.03, "bob": 0.01},
        ),
        "facts": FactScores(
            questions=20,
            right_with_lore={"base": 0.4, "live": 0.5, "new": 0.55},
            right_without_lore={"base": 0.1, "live": 0.3, "new": 0.3},
            contradictions={"base": 0.2, "live": 0.1, "new": 0.1},
            breaks_character={"base": 0.2, "live": 0.0, "new": 0.0},
        ),
        "replies": ReplyCounts(
            prompts=40,
            ended={side: 0.97 for side in sides},
            copied={"base": 0.0, "live": 0.02, "new": 0.04},
        ),
        "general": GeneralScores(
            dialogue_loss={"base": 2.5, "live": 2.55, "new": 2.55},
            dialogue_change=interval(0.02, 0.01),
            instruction_loss={"base": 2.0, "live": 2.05, "new": 2.05},
            instruction_change=interval(0.025, 0.02),
        ),
        "learned": DataChecks(
            replies=260,
            repeated=0.01,
            leaked=0.0,
            private={},
            rate=1e-3,
            epochs=2.0,
            course=LossCurve(steps=60, first=3.0, highest=2.8, last=2.0),
        ),
        "heard": MemberFeedback(
            against="v-live",
            votes=120,
            members=14,
            preferred=0.85,
            up=(30, 28),
            down=(9, 11),
            liked=0.9,
        ),
        "memorised": MemorisationScores(
            prefixes=40,
            verbatim=0.0,
            verbatim_base=0.0,
            gap={"base": 0.02, "live": 0.2, "new": 0.2},
            generated=120,
            private={},
        ),
        "safety": SafetyScores(
            prompts={"harassment": 5, "impersonation": 5, "claims_human": 6, "grief": 6},
            failed={
                "harassment": {side: 1 for side in sides},
                "impersonation": {side: 0 for side in sides},
                "claims_human": {"base": 2, "live": 1, "new": 0},
                "grief": {"base": 1, "live": 1, "new": 0},
            },
        ),
        "lore": BoundedShares(
            prompts=20,
            shares={
                LORE_RIGHT: {side: interval(0.4, 0.1) for side in sides},
                LORE_FOUND: {"new": interval(0.9, 0.1)},
            },
            ceiling={LORE_RIGHT: interval(1.0, 0.0)},
        ),
        "side_by_side": (
            SideBySide(
                prompt="does the bell <ring>?",
                real="A quarter tone flat.",
                replies={
                    side: ReplyText(text=f"said by {side}", made_by=made[side], seed=0)
                    for side in sides
                },
            ),
        ),
        "base_is_base": 0.0,
        "adapters": made,
        "left_out": {},
    }
    for name, changed in changes.items():
        whole = sections.get(name)
        sections[name] = (
            whole.model_copy(update=changed)
            if isinstance(changed, dict) and isinstance(whole, FrozenModel)
            else changed
        )
    return ScoreCard(
        persona=sections.pop("persona", "ada"),
        version="v2",
        made_at="2026-11-20T12:00:00+00:00",
        base_model_hash="0" * 64,
        precision="bfloat16",
        quick=False,
        seconds=60,
        seeds=(0, 1, 2),
        **sections,
    )


def with_new(by_side: dict[str, Any], value: Any) -> dict[str, Any]:
    """The same by side, another value for the new version."""
    return {**by_side, "new": value}
