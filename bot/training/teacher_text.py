"""What is to be expected of a training, and which model writes the replies of one from a card, in words."""

from urllib.parse import urlsplit

from bot.platform.localisation import LocalisableText, gettext_lazy, join_texts
from personas.models.base_model import EMBEDDED
from personas.schemas.formatting import model_label
from personas.schemas.training import TrainingRequest

BUNDLED_MODEL_TEXT = gettext_lazy(
    "The bundled model learns a voice, and seldom sense: two readers found none of 20 of its replies "
    "sensible."
)
LARGER_MODEL_TEXT = gettext_lazy("a larger model")


def expectation_texts(request: TrainingRequest, recommended: str) -> list[LocalisableText]:
    """Say what the bundled model reaches, if a training is over it, and which model writes the replies
    from a card. `recommended` is the title of the base model for this machine, empty if not known.
    """
    if request.base_model != EMBEDDED:
        return teacher_texts(request)
    larger = recommended or LARGER_MODEL_TEXT
    if request.teacher:
        choice = gettext_lazy(
            "A better choice for whoever runs the bot: {model} in its place (the dashboard's page Models).",
            model=larger,
        )
    else:
        choice = gettext_lazy(
            "Better choices for whoever runs the bot: a `TEACHER`, which writes the replies of `from:card`, "
            "or {model} in its place (the dashboard's page Models).",
            model=larger,
        )
    return [join_texts(BUNDLED_MODEL_TEXT, choice), *teacher_texts(request)]


def teacher_texts(request: TrainingRequest) -> list[LocalisableText]:
    """Say which model writes the replies of a request, and to which server the card goes for that;
    nothing where the base model does, or none is written.
    """
    teacher = request.teacher
    if teacher is None:
        return []
    if not teacher.url:
        return [gettext_lazy("`{model}` writes the replies.", model=model_label(teacher.model))]
    return [
        gettext_lazy(
            "`{model}` writes the replies: the persona's card and lore are sent to the server "
            "`{host}` for that.",
            model=teacher.model,
            host=urlsplit(teacher.url).hostname,
        )
    ]
