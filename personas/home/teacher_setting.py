"""The teacher that an operator names: settings of the bot, options of the trainer's commands."""

from contextlib import suppress
from urllib.parse import urlsplit

from pydantic import ValidationError

from personas.cli_common import read_setting
from personas.errors import RequestError
from personas.gettext_marker import gettext_noop
from personas.models.base_model import EMBEDDED, name_from_anywhere, split_name
from personas.models.catalogue import find_model
from personas.models.gguf_names import may_be_model
from personas.schemas.base import explain_validation_error
from personas.schemas.training import Teacher, TrainingRequest

TEACHER = "TEACHER"
TEACHER_MODEL = "TEACHER_MODEL"
TEACHER_LICENCE = "TEACHER_LICENCE"
TEACHER_KEY = "TEACHER_KEY"
"""The key of a teacher's server. It stays in the environment, and is never part of a request."""


TEACHER_ADVICE = (
    f"Set {TEACHER}, or --teacher, to a model folder, a GGUF file, an id on a hub such as owner/name or "
    "owner/name:Q4_K_M, or the address of a server, such as http://127.0.0.1:11434/v1."
)
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

    Raises `RequestError` for what can be neither, for a server's model without a name, and for an
    unknown licence, `BaseModelError` for an unknown suffix of a model's name.
    """
    if not named:
        return None
    is_server = "://" in named
    if is_server:
        _require_server(named)
    else:
        _require_model(named)
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


def _require_server(address: str) -> None:
    with suppress(ValueError):  # half an address in brackets
        if address.startswith(("http://", "https://")) and urlsplit(address).hostname:
            return
    raise RequestError(
        f"The teacher {address!r} is no address of a server: it begins with http:// or https://, and "
        "names a host.",
        TEACHER_ADVICE,
    )


def _require_model(name: str) -> None:
    """Raise `RequestError` for a name that no base model can have, and `BaseModelError` for such a
    suffix.
    """
    path, *_ = split_name(name)
    if not may_be_model(path):
        raise RequestError(f"There is no model {name!r} to be the teacher.", TEACHER_ADVICE)
