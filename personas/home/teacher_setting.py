"""The teacher that an operator names: settings of the bot, options of the trainer's commands."""

from pydantic import ValidationError

from personas.cli_common import read_setting
from personas.errors import RequestError
from personas.gettext_marker import gettext_noop
from personas.models.base_model import EMBEDDED, name_from_anywhere
from personas.models.catalogue import find_model
from personas.schemas.base import explain_validation_error
from personas.schemas.training import Teacher, TrainingRequest

TEACHER = "TEACHER"
TEACHER_MODEL = "TEACHER_MODEL"
TEACHER_LICENCE = "TEACHER_LICENCE"
TEACHER_KEY = "TEACHER_KEY"
"""The key of a teacher's server. It stays in the environment, and is never part of a request."""


OWN_TEACHER_NOTE = gettext_noop(
    "The bundled model writes the replies itself: from them a version learns a manner of speaking, "
    "and hardly any sense. Whoever runs the bot can set a larger model to write them."
)
UNKNOWN_TIME_NOTE = gettext_noop(
    "It is not known how long the teacher takes to write the replies: the time is that of what "
    "follows."
)
SMALLER_TEACHER_ADVICE = gettext_noop(
    "Close other programs, or have a smaller model, or one on a server, write the replies (TEACHER)."
)


def teacher_key(url: str) -> str:
    """Return the key for a teacher's server. It is that of the server which the settings name: where
    they name one, no other gets it.
    """
    return read_setting(TEACHER_KEY) if read_setting(TEACHER) in ("", url) else ""


def stated_teacher(named: str = "", model: str = "", licence: str = "") -> Teacher | None:
    """Return the teacher of a command's options, else of the settings; None where neither names one.

    The settings' model and licence are those of the settings' teacher: where they name one, no other
    gets them. Raises `RequestError` as `make_teacher`.
    """
    in_settings = read_setting(TEACHER)
    named = named or in_settings
    if in_settings in ("", named):
        model = model or read_setting(TEACHER_MODEL)
        licence = licence or read_setting(TEACHER_LICENCE)
    return make_teacher(named, model, licence=licence)


def teacher_notes(request: TrainingRequest) -> tuple[str, ...]:
    """Say what is to be expected of a teacher, where that is little."""
    if not request.from_card or request.teacher or request.base_model != EMBEDDED:
        return ()
    return (OWN_TEACHER_NOTE,)


def make_teacher(named: str, model: str, licence: str) -> Teacher | None:
    """Return the teacher at a server's address, or that is a base model; None if none is named.

    Raises `RequestError` for a server's model without a name, and for an unknown licence.
    """
    if not named:
        return None
    is_server = named.startswith(("http://", "https://"))
    if is_server and not model:
        raise RequestError(
            f"The teacher at {named} has no name.",
            f"Name the server's model: --teacher-model, or {TEACHER_MODEL} beside {TEACHER}.",
        )
    wanted = model if is_server else name_from_anywhere(named)
    known = find_model(wanted)
    licence = licence or (known.licence if known else "")
    if not licence:
        raise RequestError(
            f"It is not known under which licence {wanted} writes.",
            "State it once, as its card does, and read whether it allows to train on what the model "
            f"writes: --teacher-licence, or {TEACHER_LICENCE} beside {TEACHER}.",
        )
    try:
        return Teacher(model=wanted, url=named if is_server else "", licence=licence)
    except ValidationError as error:
        raise explain_validation_error(error) from None
