"""Values that many tests need."""

from personas.models.catalogue import CatalogueModel, find_model
from personas.schemas.training_events import ScoreSummary

SCORECARD = ScoreSummary(
    heldout_replies=12,
    heldout_tokens=400,
    loss_base=3.0,
    loss_tuned=2.0,
    general_loss_base=2.5,
    general_loss_tuned=2.6,
    precision="float32",
)


def catalogue_model(name: str) -> CatalogueModel:
    """A model that the catalogue has."""
    model = find_model(name)
    assert model, f"The catalogue has no model {name!r}."
    return model
