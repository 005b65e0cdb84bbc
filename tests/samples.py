"""Values that many tests need."""

from personas.contracts import ScoreCard

SCORECARD = ScoreCard(
    heldout_replies=12,
    heldout_tokens=400,
    loss_base=3.0,
    loss_tuned=2.0,
    general_loss_base=2.5,
    general_loss_tuned=2.6,
    precision="float32",
)
