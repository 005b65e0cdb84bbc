"""The vision projector with which llama.cpp sees pictures: a GGUF file beside the model's (mmproj)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from personas.models.gguf_file import READ_ERRORS
from personas.models.gguf_header import open_gguf, read_value
from personas.models.gguf_names import PROJECTOR_MARK, model_files

log = logging.getLogger(__name__)
ARCHITECTURE = "clip"
"""The architecture that all projectors name, whatever encodes the pictures."""
NAME_KEYS = ("general.name", "general.basename")


@dataclass(frozen=True)
class Projector:
    """A projector's file, the names of the model that it was made for (its own before its family's),
    and the width of the embeddings that it makes (0: it does not say).
    """

    file: Path
    names: tuple[str, ...]
    width: int

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """Read a file's header; None if it is no projector for pictures, or damaged."""
        try:
            reader = open_gguf(file)
            if read_value(reader, "general.architecture") != ARCHITECTURE:
                return None
            if not read_value(reader, f"{ARCHITECTURE}.has_vision_encoder"):
                return None
            width = read_value(reader, f"{ARCHITECTURE}.vision.projection_dim")
            return cls(file, _names(reader), int(width or 0))
        except READ_ERRORS as error:
            log.warning("the vision projector %s cannot be read: %s", file, error)
            return None


def find_projector(model: Path, width: int) -> Path | None:
    """Find the projector of a model in its folder, the smallest of several precisions; None if
    there is none.

    It makes embeddings of the model's `width`, for a model of the same name, or else of the same
    family. Where the model is the only one in the folder, the names do not count.
    """
    files = sorted(model.parent.glob(f"*{PROJECTOR_MARK}*.gguf"))
    projectors = [found for file in files if (found := Projector.read(file))]
    if not projectors:
        return None
    fitting = _fitting(projectors, model, width)
    if not fitting:
        log.warning("no vision projector in %s is that of %s", model.parent, model.name)
        return None
    return min((projector.file for projector in fitting), key=lambda file: file.stat().st_size)


def _fitting(projectors: Sequence[Projector], model: Path, width: int) -> list[Projector]:
    wide = [projector for projector in projectors if projector.width in (0, width)]
    for name in _names(open_gguf(model)):
        if named := [projector for projector in wide if name in projector.names]:
            return named
    return wide if model_files(model.parent) == [model] else []


def _names(reader: object) -> tuple[str, ...]:
    names = (read_value(reader, key) for key in NAME_KEYS)
    return tuple(str(name).casefold() for name in names if name)
