"""Which model writes the replies of a training from a card, in words."""

from urllib.parse import urlsplit

from bot.platform.localisation import LocalisableText, gettext_lazy
from personas.home.teacher_setting import teacher_notes
from personas.schemas.formatting import model_label
from personas.schemas.training import TrainingRequest


def from_card_texts(request: TrainingRequest) -> list[LocalisableText]:
    """Say what is to be expected of a training from a card, and which model writes its replies."""
    return [*map(LocalisableText, teacher_notes(request)), *teacher_texts(request)]


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
