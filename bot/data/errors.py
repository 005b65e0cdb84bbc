"""Errors of data sources, uploads and builds. `bot.data.web.problems` gives each its HTTP status."""

from collections.abc import Mapping

from personas.errors import RequestError


class DataError(RequestError):
    """A request on data that cannot be carried out."""


class InvalidNameError(DataError):
    """A file or data set cannot have this name."""


class UnsupportedFileError(DataError):
    """The file is of a type that is not read, or of another than its suffix says."""


class UnknownDataError(DataError):
    """There is no such upload, data set or job."""


class DataConflictError(DataError):
    """The request conflicts with what is here, or with a running job."""


class FetchRefusedError(DataConflictError):
    """The operator's setting does not let the bot fetch data sets."""


class IncompleteUploadError(DataError):
    """The connection broke off during an upload."""


class UploadTooLargeError(DataError):
    """The file is larger than uploads may be."""


class NoDiskSpaceError(DataError):
    """The disk has no room for the file."""


class InvalidFieldsError(DataError):
    """Fields of the request are wrong. `errors` has pairs of a field and its error."""

    def __init__(
        self,
        message: str,
        advice: str,
        errors: Mapping[str, str] | tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message, advice)
        self.errors = tuple(errors.items()) if isinstance(errors, Mapping) else errors
