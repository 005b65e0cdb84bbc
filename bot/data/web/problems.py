"""Problems of the errors that actions on data raise."""

from bot.data import errors
from bot.platform.web_kit.problems import Problem, field_error, redacted_problem
from bot.services import Services
from bot.training.guild_turns import QueueConflictError
from personas.errors import EngineBusyError, MaterialError, RequestError, UnderstudyError

SLUGS: dict[type[errors.DataError], str] = {
    errors.InvalidNameError: "bad-name",
    errors.UnsupportedFileError: "wrong-kind",
    errors.UnknownDataError: "not-found",
    errors.DataConflictError: "conflict",
    errors.FetchRefusedError: "conflict",
    errors.IncompleteUploadError: "not-whole",
    errors.UploadTooLargeError: "too-large",
    errors.NoDiskSpaceError: "no-room",
    errors.InvalidFieldsError: "invalid-request",
}
FORM_ERRORS = (Problem, RequestError, EngineBusyError)
"""Errors that the page of a form shows above it."""
OFFER_ERRORS = (*FORM_ERRORS, MaterialError)
"""Those of an offer to moderators, whose data set may be damaged or gone."""


def data_problem(error: errors.DataError) -> Problem:
    """Return the problem of an error, with the wrong fields."""
    wrong = error.errors if isinstance(error, errors.InvalidFieldsError) else ()
    fields = [field_error(name, reason) for name, reason in wrong]
    return Problem(SLUGS[type(error)], error.message, error.advice, errors=fields)


def form_problem(error: UnderstudyError, services: Services) -> Problem:
    """Return the problem that a form shows."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, errors.DataError):
        return data_problem(error)
    slug = "refused"
    if isinstance(error, QueueConflictError):
        slug = "conflict"
    elif isinstance(error, EngineBusyError):
        slug = "busy"
    return redacted_problem(slug, error, services.home)


def offer_problem(error: UnderstudyError, services: Services) -> Problem:
    """Return the problem of an offer to moderators: the catalogue refuses names."""
    problem = form_problem(error, services)
    if problem.slug == "refused" and isinstance(error, RequestError):
        problem.name_field("name")
    return problem
