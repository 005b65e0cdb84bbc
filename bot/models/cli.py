"""`python -m bot models`: the table of base models, `models fetch` and `models use`."""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from bot.models.actions import fetched_name
from bot.models.engine_advice import PresentEngine, advise_engine
from bot.models.fetch import FetchPlan, plan_fetch, require_accepted, run_fetch
from bot.models.switch import (
    SwitchPlan,
    find_local_name,
    plan_switch,
    require_unset_in_environment,
    switch_json,
    use_model,
)
from bot.models.table import ModelTable, build_table, speed_text
from bot.personas.base_model_compat import VersionKey
from bot.settings import SettingsError
from bot.store import HOME_DATABASE, Store
from personas.cli_common import LogProgress, commands_as_typed, confirm
from personas.models.model_fit import RESERVE_BYTES, ModelFit
from personas.shipped_folders import IS_SOURCE_TREE

CHECKOUT = Path(__file__).resolve().parents[2]
GIB = 2**30
COLUMNS = (
    ("model", 20), ("name", 18), ("serve", 7), ("train", 7), ("disk", 7), ("fits", 8), ("tokens/s", 9),
    ("engine", 10), ("context", 8), ("licence", 0),
)  # fmt: skip


def run_models(arguments: argparse.Namespace, home: Path) -> int:
    """Print the table. Returns the exit code."""
    table = asyncio.run(build_table(home, arguments.settings.base_model))
    if arguments.json:
        print(json.dumps(table.as_json(), ensure_ascii=False))
    else:
        print(commands_as_typed("\n".join(table_lines(table))))
    return 0


def run_fetch_command(arguments: argparse.Namespace, home: Path) -> int:
    """Fetch a base model, after its licence was accepted. Returns the exit code."""
    return asyncio.run(_fetch(arguments, home))


async def _fetch(arguments: argparse.Namespace, home: Path) -> int:
    table = await build_table(home, arguments.settings.base_model)
    name = fetched_name(arguments.name, table, arguments.format)
    plan = await asyncio.to_thread(plan_fetch, name)
    for line in plan.lines:
        print(line, file=sys.stderr if arguments.json else sys.stdout)
    accepted = arguments.yes or confirm("Accept the licence, and fetch it?")
    require_accepted(plan, accepted=accepted)
    await run_fetch(plan, _ProgressLine().say)
    _print_fetched(arguments, plan)
    return 0


def _print_fetched(arguments: argparse.Namespace, plan: FetchPlan) -> None:
    if arguments.json:
        print(json.dumps({"base_model": plan.files.name, "bytes": plan.files.bytes}))
        return
    print(f"{plan.title} is here, and its files are whole.")
    name = plan.model.name if plan.model else plan.files.name
    print(commands_as_typed(f"  python -m bot models use {name}"))


class _ProgressLine:
    """Shows progress in one line of a terminal, or now and then in a log."""

    def __init__(self) -> None:
        self._log = LogProgress()

    def say(self, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        self._log.update(text)


def run_use_command(arguments: argparse.Namespace, home: Path) -> int:
    """Write BASE_MODEL, and ENGINE where another one serves it best here, after saying what becomes of
    each persona. Returns the exit code.
    """
    env_file = _require_env_file(arguments.env)
    plan = asyncio.run(_plan_use(arguments, home))
    if plan.base_model == plan.previous and not plan.engine.engine:
        return _say_already_set(arguments, plan)
    require_unset_in_environment(plan, env_file)
    if not arguments.json:
        written = ", ".join(f"{setting}={value}" for setting, value in plan.settings.items())
        print(f"To write into {env_file}: {written} (BASE_MODEL was {plan.previous}).")
        for line in plan.lines:
            print(f"  {line}")
    if not arguments.yes and plan.to_retrain and not confirm("Write it?"):
        print("Nothing was changed; --yes does not ask.", file=sys.stderr)
        return 1
    todo = use_model(plan, env_file)
    if arguments.json:
        print(json.dumps(switch_json(plan, todo), ensure_ascii=False))
    else:
        print(f"Written to {env_file}.", *todo, sep="\n")
    return 0


def _say_already_set(arguments: argparse.Namespace, plan: SwitchPlan) -> int:
    if arguments.json:
        print(json.dumps(switch_json(plan), ensure_ascii=False))
    else:
        note = [plan.engine.note] if plan.engine.note else []
        print(f"BASE_MODEL is {plan.base_model} already; nothing was written.", *note, sep="\n")
    return 0


def _require_env_file(path: Path) -> Path:
    """Return the absolute path of the file with settings. The bot reads the one of the folder that it
    starts in, so a new file anywhere but beside the code would have no effect. An installed package is
    started in any folder.
    """
    file = path.absolute()
    if IS_SOURCE_TREE and not file.exists() and file.parent.resolve() != CHECKOUT:
        raise SettingsError(
            f"There is no file with settings {file}.",
            "Go to the folder that the bot starts in, or name its file: python -m bot --env FILE "
            "models use NAME",
        )
    return file


async def _plan_use(arguments: argparse.Namespace, home: Path) -> SwitchPlan:
    settings = arguments.settings
    name = arguments.name
    table = await build_table(home, settings.base_model)
    name = await asyncio.to_thread(find_local_name, name, table)
    engine = await asyncio.to_thread(advise_engine, name, table, PresentEngine.of(settings))
    return await asyncio.to_thread(
        plan_switch,
        home,
        name,
        previous=settings.base_model,
        live=_live_versions(home),
        engine=engine,
    )


def _live_versions(home: Path) -> list[VersionKey]:
    file = home / HOME_DATABASE
    if not file.exists():
        return []
    with Store.read_only(file) as store:
        return list(store.versions.all_live())


def table_lines(table: ModelTable) -> Iterator[str]:
    """Format the table for a terminal; GiB, and tokens per second of one chat."""
    yield _machine_line(table)
    yield ""
    yield "".join(f"{title:<{width}}" for title, width in COLUMNS).rstrip()
    for fit in table.fits:
        yield _row(table, fit)
    yield ""
    yield "GiB of memory to serve and to train with the lightest recipe, and of disk, about. Fits:"
    yield "both = it trains while it serves, in turn = either at a time, serves = it cannot be trained."
    yield "Tokens/s of one chat: ~ by this processor's products, else measured here; – comes with use."
    if table.training_error:
        yield f"What a training takes is not known: {table.training_error}."
    yield ""
    if table.recommended is None:
        yield f"Recommended: {table.reason}."
        return
    name = table.recommended.model.name
    yield f"Recommended: {table.recommended.model.title}: {table.reason}."
    if table.shortage:
        yield table.shortage
    yield f"  python -m bot models fetch {name}"
    yield f"  python -m bot models use {name}"


def _machine_line(table: ModelTable) -> str:
    machine = table.machine
    reserve = f"{RESERVE_BYTES / GIB:.0f} GiB of it for other programs"
    parts = [f"{machine.memory_bytes / GIB:.1f} GiB of memory ({reserve})"]
    if machine.card_bytes:
        parts.append(f"{machine.card_name} with {machine.card_bytes / GIB:.1f} GiB")
    if machine.weight_bytes_per_s:
        speed = f"{machine.weight_bytes_per_s / 1e9:.1f} GB/s of weights in {machine.precision}"
        parts.append(speed)
    return f"This machine: {', '.join(parts)}. BASE_MODEL is {table.base_model}."


def _row(table: ModelTable, fit: ModelFit) -> str:
    model = fit.model
    mark = ""
    if fit == table.recommended:
        mark = "→ "
    elif model == table.served:
        mark = "* "
    cells = (
        mark + model.title,
        model.name,
        f"{fit.engine.bytes / GIB:.1f}",
        f"{fit.training.bytes / GIB:.1f}" if fit.training else "–",
        f"{fit.disk_bytes / GIB:.1f}",
        fit.fits,
        speed_text(fit),
        fit.engine.engine,
        f"{model.context_tokens // 1024}K",
        model.licence,
    )
    padded = zip(cells, (width for _, width in COLUMNS), strict=True)
    return "".join(f"{cell:<{width}}" for cell, width in padded).rstrip()
