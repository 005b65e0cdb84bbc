"""Vectors of the shipped lore and of small talk, which a first start would compute for seconds.

`python -m tools.lore_vectors` writes them after a change of the lore or of the way in which units
are formed. What is not among them, or was since changed, is computed as all other lore is.
"""

import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from personas.lore.minilm import Vectors
from personas.shipped_folders import SHIPPED_DATA

log = logging.getLogger(__name__)
SHIPPED_VECTORS = SHIPPED_DATA / "lore-vectors.npz"
"""`keys`: shape (units,), each a `unit_key` in ASCII; `vectors`: shape (units, dimensions), float16."""


def write_shipped_vectors(vectors: Mapping[str, Vectors], path: Path = SHIPPED_VECTORS) -> None:
    """Write vectors by their keys."""
    keys = sorted(vectors)
    with path.open("wb") as file:
        packed = np.stack([vectors[key] for key in keys]).astype(np.float16)
        np.savez(file, keys=np.array(keys, "S"), vectors=packed)


@lru_cache(maxsize=1)
def shipped_vectors(path: Path = SHIPPED_VECTORS) -> Mapping[str, Vectors]:
    """Read the vectors by their keys; none where the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            keys = [key.decode() for key in stored["keys"]]
            return dict(zip(keys, stored["vectors"].astype(np.float32), strict=True))
    except Exception as error:  # numpy and zipfile raise whatever a damaged file makes them meet
        log.warning("%s cannot be read, so that its vectors are computed: %s.", path, error)
        return {}
