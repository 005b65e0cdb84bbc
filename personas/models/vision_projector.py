"""The vision projector with which llama.cpp sees pictures: a GGUF file beside the model's (mmproj)."""

import logging
from pathlib import Path

from personas.models.gguf_file import READ_ERRORS
from personas.models.gguf_header import read_value
from personas.models.gguf_names import PROJECTOR_MARK

log = logging.getLogger(__name__)
ARCHITECTURE = "clip"
"""The architecture that all projectors name, whatever encodes the pictures."""


def find_projector(model: Path, width: int) -> Path | None:
    """Find the projector of a model in its folder: one that encodes pictures into embeddings of the
    model's `width`, the smallest of several precisions. None if there is none.
    """
    fitting = [
        file for file in sorted(model.parent.glob(f"*{PROJECTOR_MARK}*.gguf")) if _fits(file, width)
    ]
    return min(fitting, key=lambda file: file.stat().st_size, default=None)


def _fits(file: Path, width: int) -> bool:
    from gguf import GGUFReader  # takes 0.2 s

    try:
        reader = GGUFReader(file)
        is_projector = read_value(reader, "general.architecture") == ARCHITECTURE
        sees = read_value(reader, f"{ARCHITECTURE}.has_vision_encoder")
        projected = read_value(reader, f"{ARCHITECTURE}.vision.projection_dim")
    except READ_ERRORS as error:
        log.warning("%s is no vision projector that can be read: %s", file, error)
        return False
    if is_projector and sees and projected == width:
        return True
    log.info("%s is the vision projector of another model", file)
    return False
