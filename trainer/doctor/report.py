"""All checks, and what they come to: for people and for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from personas.base_model import BaseModel, locate
from personas.errors import BaseModelError
from trainer.doctor import hardware, software, surroundings
from trainer.doctor.check import GIB, Check
from trainer.doctor.fits import CARDS_GIB, Fit, fits
from trainer.loop.memory import machine_bytes
from trainer.machine import MAIN_MEMORY, Machine, free_bytes, graphics_cards, machine_guessed
from trainer.recipe import recipe_names

COLOURS = {"ok": "32", "warn": "33", "fail": "31"}
NAME_WIDTH, CELL_WIDTH, RECIPE_WIDTH = 16, 10, 17


@dataclass(frozen=True)
class Report:
    """What the doctor found. `fits` has every recipe over every model."""

    machine: Machine
    checks: tuple[Check, ...]
    fits: tuple[Fit, ...]

    @property
    def failed(self) -> list[str]:
        """Names of the checks without which a run does not work."""
        return [check.name for check in self.checks if check.state == "fail"]

    def as_json(self) -> dict[str, Any]:
        """The published object of `doctor --json`."""
        return {
            "well": not self.failed,
            "machine": asdict(self.machine),
            "checks": [asdict(check) for check in self.checks],
            "fits": [asdict(fit) for fit in self.fits],
        }


def examined(base_model: str, home: Path, heard: Callable[[str], None] = lambda _: None) -> Report:
    """Look at everything; `heard` is told what is looked at. Nothing is fetched, and nothing stays behind."""
    checks: list[Check] = []

    def take(what: str, check: Callable[[], Check]) -> None:
        heard(what)
        checks.append(check())

    heard("torch")
    torch_check, torch = software.torch_here()
    machine = _machine(torch)
    take("Python", software.python)
    take("packages", software.packages)
    checks.append(torch_check)
    take("graphics card", lambda: hardware.graphics(graphics_cards(), torch))
    take("processor", hardware.processor)
    base = _base(base_model)
    found = _fits(base, machine)
    least = min((fit.here_bytes for fit in found if base and fit.model == base.name), default=0)
    take("memory", lambda: hardware.memory(machine, least))
    take("4-bit weights", software.four_bits)
    take("compilers", software.compilers)
    take("torch.compile", software.compiling)
    take("extras", software.extras)
    take("disk", lambda: surroundings.disk(home))
    take("model hub", surroundings.hub)
    take("base model", lambda: surroundings.base_model(base_model))
    return Report(machine, tuple(checks), tuple(found))


def lines(report: Report, *, coloured: bool) -> Iterator[str]:
    """The report for a terminal."""
    for check in report.checks:
        yield f"{_state(check, coloured)}  {check.name:<{NAME_WIDTH}}{check.found}"
        if check.remedy:
            yield f"{'':<{NAME_WIDTH + 6}}→ {check.remedy}"
    room = f"{report.machine.device}, {report.machine.memory_bytes / GIB:.1f} GiB"
    yield ""
    yield f"GiB that a run needs on this machine ({room}; ✗ does not fit)"
    yield from _table(report.fits, lambda fit: f"{fit.here_bytes / GIB:.1f}{' ' if fit.fits_here else '✗'}")
    cards = ", ".join(map(str, CARDS_GIB))
    yield ""
    yield f"GiB that it needs on a graphics card of {cards} GB, and the smallest that holds it (✗ none)"
    yield from _table(report.fits, lambda fit: f"{fit.card_bytes / GIB:.1f} {fit.card_gib or '✗'}".rjust(7))
    yield (
        "The most that any part of the run takes. A model whose weights fit a card in 16 bits is served and measured "
        "in 16 there, a larger one in 4: it may need less."
    )
    yield "Predicted over samples of each recipe's full length; a run's own plan reckons with its samples."


def hints(report: Report) -> Iterator[str]:
    """What to do about each thing that is not well."""
    return (f"{check.name}: {check.remedy}" for check in report.checks if check.remedy)


def _machine(torch: hardware.Torch | None) -> Machine:
    """This machine: without its graphics card where torch does not compute on it."""
    machine = machine_guessed()
    if machine.has_cuda and not (torch and torch.sees_gpu):
        return Machine(False, torch.best if torch else machine.best, machine_bytes(), free_bytes(), MAIN_MEMORY)
    return replace(machine, best=torch.best) if torch else machine


def _base(name: str) -> BaseModel | None:
    try:
        return locate(name, fetch=False)
    except BaseModelError:  # that check says so
        return None


def _fits(base: BaseModel | None, machine: Machine) -> list[Fit]:
    try:
        return fits(base, machine)
    except BaseModelError:
        return fits(None, machine)


def _table(found: Sequence[Fit], cell: Callable[[Fit], str]) -> Iterator[str]:
    """Recipes by models."""
    models = list(dict.fromkeys(fit.model for fit in found))
    heads = [_short(model) for model in models]
    for line in (0, 1):
        yield " " * RECIPE_WIDTH + "".join(f"{head[line]:>{CELL_WIDTH}}" for head in heads)
    for recipe in recipe_names():
        cells = "".join(f"{cell(fit):>{CELL_WIDTH}}" for fit in found if fit.recipe == recipe)
        yield f"{recipe:<{RECIPE_WIDTH}}{cells}"


def _short(model: str) -> tuple[str, str]:
    """Family and size of a model, as far as its name has them: Qwen2.5, 3B."""
    name = model.rstrip("/").rpartition("/")[2].partition("@")[0].partition("-Instruct")[0]
    family, _, size = name.rpartition("-")
    return (family or name)[: CELL_WIDTH - 1], size[: CELL_WIDTH - 1] if family else ""


def _state(check: Check, coloured: bool) -> str:
    return f"\x1b[{COLOURS[check.state]}m{check.state:<4}\x1b[0m" if coloured else f"{check.state:<4}"
