"""The measured cells, a persona trained in one way each, and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from personas.errors import RequestError
from personas.home.atomic_files import write_file
from personas.schemas.scorecard import Interval
from trainer.evaluate.generation.reply_tasks import ReplyValue


@dataclass(frozen=True)
class AskedReply:
    """A reply to the held-out message with this number, generated with a seed."""

    number: int
    seed: int
    message: str
    text: str


@dataclass(frozen=True)
class Cell:
    """What is measured of a persona, trained in one way on a base model.

    `values` are those of the replies by measure, `ceiling` and `floor` those of the texts that bound
    it. `general_loss` is in nats a token, `general_change` its increase relative to the base
    model's. `replies` are those to held-out messages. `key` is a hash of all that they depend on.
    """

    base_model: str
    teacher: str
    persona: str
    way: str
    quick: bool
    key: str
    general_loss: float = 0.0
    general_change: Interval | None = None
    values: dict[str, list[ReplyValue]] = field(default_factory=dict)
    ceiling: dict[str, list[ReplyValue]] = field(default_factory=dict)
    floor: dict[str, list[ReplyValue]] = field(default_factory=dict)
    replies: tuple[AskedReply, ...] = ()
    training_s: float = 0.0
    measuring_s: float = 0.0

    @property
    def name(self) -> tuple[object, ...]:
        """What it is a measurement of; a later one takes its place."""
        return self.base_model, self.teacher, self.persona, self.way, self.quick


STORED_CELLS = TypeAdapter(list[Cell])


def read_cells(file: Path) -> list[Cell]:
    """Read the cells of a file; none without a file. Raises `RequestError` if it is damaged."""
    try:
        return STORED_CELLS.validate_python(json.loads(file.read_bytes())["cells"])
    except FileNotFoundError:
        return []
    except (OSError, ValueError, LookupError, TypeError, ValidationError) as error:
        advice = "Remove it, and all is measured again; trained adapters stay."
        raise RequestError(f"{file} cannot be read: {error}.", advice) from error


def find_cell(cells: Sequence[Cell], wanted: Cell) -> Cell | None:
    """Return the stored cell that measures the same under the same conditions."""
    for cell in cells:
        if cell.name == wanted.name and cell.key == wanted.key:
            return cell
    return None


def store_cell(file: Path, cell: Cell) -> None:
    """Add a cell to the file in the place of an earlier one of the same name. Raises
    `RequestError`, `OSError`.
    """
    cells = [other for other in read_cells(file) if other.name != cell.name]
    content = {"cells": STORED_CELLS.dump_python([*cells, cell], mode="json")}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, json.dumps(content, ensure_ascii=False).encode() + b"\n")
