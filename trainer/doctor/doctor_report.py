"""Runs all checks, predicts which recipes fit which base models, and formats the result."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from personas.errors import BaseModelError
from personas.models.base_model import BaseModel, locate
from personas.models.catalogue import BILLION, CatalogueModel, catalogue_models
from personas.models.graphics_cards import list_gpus
from trainer.doctor import machine_checks
from trainer.doctor.machine_checks import GIB, MachineCheck
from trainer.estimate.memory_model import predict_memory
from trainer.estimate.model_shape import ModelShape, shape_from_config
from trainer.machine import (
    MAIN_MEMORY,
    MachineSpec,
    free_memory_bytes,
    probe_machine_without_torch,
    total_memory_bytes,
)
from trainer.recipe.auto_recipe import (
    AUTO_RECIPE,
    ModelTraits,
    SampleStats,
    choose_recipe,
    model_traits,
)
from trainer.recipe.recipe_file import load_recipe, recipe_names
from trainer.schemas import Recipe

GPU_SIZES_GIB = (6, 16, 24)  # memory of a laptop RTX 3060, a T4, and an RTX 3090 or 4090
# Assumed for the recipe `auto`.
ASSUMED_SAMPLES = 1000  # of full length
ASSUMED_REPLY_SHARE = 0.25  # of their tokens
STATE_COLOURS = {"ok": "32", "warn": "33", "fail": "31"}
NAME_WIDTH = 16
CELL_WIDTH = 10
RECIPE_WIDTH = 17


@dataclass(frozen=True)
class RecipeFit:
    """A recipe on a model: predictions for this machine and for the smallest GPU that fits it, or
    the largest.

    `card_gib` is that GPU's size, 0 if none fits.
    """

    model: str
    recipe: str
    here_bytes: int
    fits_here: bool
    card_bytes: int
    card_gib: int


def predict_recipe_fits(base: BaseModel | None, machine: MachineSpec) -> list[RecipeFit]:
    """Predict every recipe on each model, with samples of full length. Raises `BaseModelError` for
    an unknown size.
    """
    models = {base.name: model_traits(base)} if base else {}
    models |= known_models()
    fits = []
    for model, traits in models.items():
        for recipe in recipe_names():
            fits.append(_predict_fit(model, recipe, traits, machine))
    return fits


def known_models() -> dict[str, ModelTraits]:
    """Return the models of the catalogue by their ids, smallest first."""
    models = {}
    for model in catalogue_models():
        kind = str(model.config["model_type"])
        models[model.id] = ModelTraits(_shape_of(model), model.context_tokens, kind)
    return models


def _shape_of(model: CatalogueModel) -> ModelShape:
    """Return the shape; what linear attention has beyond attention's matrices is counted with the
    feed-forward ones, which is rough.
    """
    shape = shape_from_config(model.config)
    if not model.has_linear_attention:
        return shape
    missing = max(0, model.parameters - shape.weights)
    wider = shape.intermediate + missing // (3 * shape.layers * shape.width)
    return replace(shape, intermediate=wider, weight_bytes=model.weight_bytes)


def _predict_fit(model: str, name: str, sizes: ModelTraits, machine: MachineSpec) -> RecipeFit:
    smallest_card_gib = 0
    for card_gib in GPU_SIZES_GIB:
        card = MachineSpec(
            True,
            # Cards of 16 GB are taken for T4s, which have no bfloat16.
            "bf16" if card_gib != 16 else "fp16",
            card_gib * GIB,
            free_bytes=card_gib * GIB,
            device=f"{card_gib} GB",
        )
        needed = _required_bytes(name, sizes, card)
        if needed <= card.memory_bytes:
            smallest_card_gib = card_gib
            break
    needed_here = _required_bytes(name, sizes, machine)
    return RecipeFit(
        model,
        name,
        needed_here,
        fits_here=needed_here <= machine.memory_bytes,
        card_bytes=needed,
        card_gib=smallest_card_gib,
    )


def _required_bytes(name: str, model: ModelTraits, machine: MachineSpec) -> int:
    recipe = _recipe_for_model(name, model, replace(machine, free_bytes=machine.memory_bytes))
    longest = min(recipe.max_length, model.context or recipe.max_length)
    return predict_memory(recipe, model.shape, longest, machine).total


def _recipe_for_model(name: str, model: ModelTraits, machine: MachineSpec) -> Recipe:
    recipe = load_recipe(name)
    if name != AUTO_RECIPE:
        return recipe
    # Twice: how many reply tokens there are follows from the length that `auto` chooses.
    full = SampleStats(ASSUMED_SAMPLES, recipe.max_length, 0)
    longest = choose_recipe(recipe, model, full, machine).recipe.max_length
    reply_tokens = round(ASSUMED_SAMPLES * longest * ASSUMED_REPLY_SHARE)
    samples = SampleStats(ASSUMED_SAMPLES, longest, reply_tokens)
    return choose_recipe(recipe, model, samples, machine).recipe


@dataclass(frozen=True)
class DoctorReport:
    """The results of all checks; `fits` has every recipe on every model."""

    machine: MachineSpec
    checks: tuple[MachineCheck, ...]
    fits: tuple[RecipeFit, ...]

    @property
    def failed(self) -> list[str]:
        """Names of failed checks, which keep runs from working."""
        return [check.name for check in self.checks if check.state == "fail"]

    def as_json(self) -> dict[str, Any]:
        """Return the published object of `doctor --json`."""
        return {
            "well": not self.failed,
            "machine": asdict(self.machine),
            "checks": [asdict(check) for check in self.checks],
            "fits": [asdict(fit) for fit in self.fits],
        }


def run_checks(
    base_model: str, home: Path, report_check: Callable[[str], None] = lambda _: None
) -> DoctorReport:
    """Run all checks; `report_check` gets the name of each. Downloads nothing and leaves nothing
    behind.
    """
    report_check("torch")
    torch_check, torch = machine_checks.check_torch()
    machine = _usable_machine(torch)
    base = _find_base_model(base_model)
    fits = _recipe_fits(base, machine)
    own_fits = [fit for fit in fits if base and fit.model == base.name]
    least_bytes = min((fit.here_bytes for fit in own_fits), default=0)
    checks: dict[str, Callable[[], MachineCheck]] = {
        "Python": machine_checks.check_python,
        "packages": machine_checks.check_packages,
        "torch": lambda: torch_check,
        "graphics card": lambda: machine_checks.check_gpus(list_gpus(), torch),
        "processor": machine_checks.check_processor,
        "memory": lambda: machine_checks.check_memory(machine, least_bytes),
        "4-bit weights": machine_checks.check_quantisation,
        "compilers": machine_checks.check_compilers,
        "torch.compile": machine_checks.check_torch_compile,
        "extras": lambda: machine_checks.check_extras(torch),
        "disk": lambda: machine_checks.check_disk(home),
        "model hub": machine_checks.check_hub,
        "base model": lambda: machine_checks.check_base_model(base_model),
    }
    results = []
    for name, check in checks.items():
        report_check(name)
        results.append(check())
    return DoctorReport(machine, tuple(results), tuple(fits))


def size_lines(report: DoctorReport) -> Iterator[str]:
    """Format the tables of memory for a terminal."""
    fits = _shown_fits(report.fits)
    machine = f"{report.machine.device}, {report.machine.memory_bytes / GIB:.1f} GiB"
    yield f"GiB that a run needs on this machine ({machine}; ✗ = does not fit)"
    yield from _fit_table(fits, _cell_here)
    cards = ", ".join(map(str, GPU_SIZES_GIB))
    yield ""
    yield (
        f"GiB that it needs on a graphics card of {cards} GB, and the smallest that fits it (✗ = "
        "none)"
    )
    yield from _fit_table(fits, _cell_on_card)
    yield (
        "Peak memory of the run. A model that fits a card in 16 bits is served and evaluated in 16 "
        "bits there, a larger one in 4 bits, which may need less."
    )
    yield "Predicted for samples of each recipe's full length; a run's own plan uses its samples."


def report_lines(report: DoctorReport, *, coloured: bool) -> Iterator[str]:
    """Format the report for a terminal."""
    for check in report.checks:
        yield f"{_format_state(check, coloured)}  {check.name:<{NAME_WIDTH}}{check.found}"
        if check.remedy:
            yield f"{'':<{NAME_WIDTH + 6}}→ {check.remedy}"
    yield ""
    yield from size_lines(report)


def _shown_fits(fits: Sequence[RecipeFit]) -> list[RecipeFit]:
    """Leave out models of the size of another one, because the table is as wide as a terminal."""
    sizes = dict[int, str]()
    for model in catalogue_models():
        if not model.has_linear_attention:
            sizes.setdefault(round(model.parameters / BILLION), model.id)
    known = {model.id for model in catalogue_models()}
    hidden = known - set(sizes.values())
    return [fit for fit in fits if fit.model not in hidden]


def _cell_here(fit: RecipeFit) -> str:
    mark = " " if fit.fits_here else "✗"
    return f"{fit.here_bytes / GIB:.1f}{mark}"


def _cell_on_card(fit: RecipeFit) -> str:
    return f"{fit.card_bytes / GIB:.1f} {fit.card_gib or '✗'}".rjust(7)


def remedy_lines(report: DoctorReport) -> Iterator[str]:
    """Yield the remedy of each check that is not ok."""
    return (f"{check.name}: {check.remedy}" for check in report.checks if check.remedy)


def _usable_machine(torch: machine_checks.TorchBuild | None) -> MachineSpec:
    """Return this machine, without its GPU if torch cannot use it."""
    machine = probe_machine_without_torch()
    best = torch.best if torch else machine.best
    if machine.has_cuda and not (torch and torch.sees_gpu):
        return MachineSpec(
            False, best, total_memory_bytes(), free_bytes=free_memory_bytes(), device=MAIN_MEMORY
        )
    return replace(machine, best=best)


def predict_sizes(base_model: str) -> DoctorReport:
    """Predict the memory of each recipe on each model, without the checks. Loads no torch."""
    machine = probe_machine_without_torch()
    return DoctorReport(machine, (), tuple(_recipe_fits(_find_base_model(base_model), machine)))


def _find_base_model(name: str) -> BaseModel | None:
    try:
        return locate(name, fetch=False)
    except BaseModelError:
        return None  # the check of the base model says why


def _recipe_fits(base: BaseModel | None, machine: MachineSpec) -> list[RecipeFit]:
    try:
        return predict_recipe_fits(base, machine)
    except BaseModelError:
        return predict_recipe_fits(None, machine)


def _fit_table(fits: Sequence[RecipeFit], cell: Callable[[RecipeFit], str]) -> Iterator[str]:
    """Format a table of recipes by models."""
    models = dict.fromkeys(fit.model for fit in fits)
    heads = list(map(_short_model_name, models))
    for line in (0, 1):
        yield " " * RECIPE_WIDTH + "".join(f"{head[line]:>{CELL_WIDTH}}" for head in heads)
    for recipe in recipe_names():
        cells = "".join(f"{cell(fit):>{CELL_WIDTH}}" for fit in fits if fit.recipe == recipe)
        yield f"{recipe:<{RECIPE_WIDTH}}{cells}"


def _short_model_name(model: str) -> tuple[str, str]:
    """Return a model's family and size from its name, such as Qwen2.5 and 3B."""
    name = model.rstrip("/").rpartition("/")[2].partition("@")[0].partition("-Instruct")[0]
    family, _, size = name.rpartition("-")
    if not family:
        return name[: CELL_WIDTH - 1], ""
    return family[: CELL_WIDTH - 1], size[: CELL_WIDTH - 1]


def _format_state(check: MachineCheck, coloured: bool) -> str:
    state = f"{check.state:<4}"
    return f"\x1b[{STATE_COLOURS[check.state]}m{state}\x1b[0m" if coloured else state
