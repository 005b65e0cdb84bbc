"""The base of everything that is written to disk or sent between processes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Contract(BaseModel):
    """Frozen, and refuses unknown fields, so that a slip is an error and not a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")
