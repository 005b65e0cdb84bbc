"""A job folder from the words of a command line: the same self-contained folder that the bot makes of a request."""

from __future__ import annotations

import argparse
import hashlib
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from personas.base_model import Precision
from personas.card import read_any
from personas.card.own import table_of, toml_bytes
from personas.consent import Consent, read_consent
from personas.contracts import JobSpec, Persona, TrainingRequest
from personas.data_set import is_data_set, joint_right
from personas.durable import held, put_private, sync, sync_tree
from personas.errors import MaterialError, RequestError
from personas.for_everybody import card_files, card_material, lore_material
from personas.hyperparameters import Hyperparameters
from personas.job_folder import REQUEST, bring_up_to_date, fill_folder
from personas.job_material import (
    ShippedData,
    SourceMaterial,
    adapter,
    data_set,
    day_of,
    dialogue_adapter,
    given,
    shipped_general,
    single,
)
from personas.precisions import no_int8
from personas.rights import ON_THE_COMMAND_LINE, Statement, statement_beside
from trainer.building.mix import Source
from trainer.commands.orders import persona_named
from trainer.commands.plan import source_of
from trainer.commands.settings_given import settings_given
from trainer.machine import machine_guessed
from trainer.material import read_spec
from trainer.recipe import request_of
from trainer.sources import ReadOptions, rights_in
from trainer.sources.hub import located

RUNS, ASIDE = "runs", ".making-"
ID_DIGITS = 10
OWN_CARD = "own-writing", "whoever named it on the command line", "Named to be trained."


@dataclass(frozen=True)
class Asked:
    """A run that is asked for: what a job folder is made of."""

    home: Path
    request: TrainingRequest
    materials: tuple[SourceMaterial, ...]

    def with_settings(self, changes: Hyperparameters) -> Asked:
        """The same with other settings."""
        return replace(self, request=self.request.model_copy(update={"hyperparameters": changes}))


def asked(options: argparse.Namespace, home: Path) -> Asked:
    """What the command line asks for.

    Raises `UnderstudyError` when it names something that is not there or may not be trained on.
    """
    if options.dialogue and options.persona:
        raise RequestError("--dialogue trains no persona.", "Leave out one of --dialogue and --persona.")
    if not (options.persona or options.dataset):
        raise RequestError("There is nothing to train.", "Name a --persona, or --dialogue with a --dataset.")
    persona = persona_named(options.persona, home) if options.persona else None
    consent, shipped = read_consent(home), ShippedData.beside_the_code()
    materials = [*_of_persona(persona, options, shipped, home), _to_learn(persona, options, home, shipped, consent)]
    mixed = _to_mix(options, home, consent) if options.general else None
    used = {path for it in (*materials, *filter(None, [mixed])) for path, _ in it.copies}
    general = shipped_general(shipped, consent)
    # What is trained on tells little of what training makes the model forget: taken where there is nothing else.
    others = [it for it in general if not used.intersection(path for path, _ in it.copies)] or general
    materials += [*filter(None, [mixed]), *others]
    if options.start_from:
        materials.append(_started_from(options.start_from, home, consent))
    return Asked(home, _request(options, persona, materials), tuple(materials))


@contextmanager
def made_aside(wanted: Asked, beside: Path) -> Iterator[tuple[Path, JobSpec]]:
    """The job's folder in a place of its own, gone at the end unless it was moved, and what it says.

    The job's id is made of what is asked and of what the material holds, so the same is the same job. Raises `OSError`
    or `UnderstudyError`.
    """
    precision = _serving(wanted.request.base_model)
    with tempfile.TemporaryDirectory(prefix=ASIDE, dir=beside) as aside, held(Path(aside)):
        folder = Path(aside)
        spec = fill_folder(folder, wanted.home, "", "", wanted.request, wanted.materials, precision)
        name = f"run-{_digest(spec)[:ID_DIGITS]}"
        spec = spec.model_copy(update={"job_id": name, "version": name})
        put_private(folder / REQUEST, spec.model_dump_json(indent=2).encode() + b"\n")
        yield folder, spec


def _serving(base: str) -> Precision:
    """What a bot on this machine serves a base model in, unless its operator wants another."""
    machine = machine_guessed()
    if not machine.has_cuda and not no_int8(base):
        return "int8"
    return "bfloat16" if machine.best == "bf16" else "float32"


def job_id_of(wanted: Asked) -> str:
    """The id that the job would have. Raises whatever `made_aside` does."""
    with made_aside(wanted, Path(tempfile.gettempdir())) as (_, spec):
        return spec.job_id


def _digest(spec: JobSpec) -> str:
    """Of what decides the run; not of the day on which somebody stated a right."""
    parts = [(it.kind, it.path, it.right, it.sha256, it.persona_names) for it in spec.materials]
    whole = [spec.request.model_dump_json(), spec.serving_precision, repr(parts)]
    return hashlib.sha256("\0".join(whole).encode()).hexdigest()


def job_folder(wanted: Asked, out: Path | None) -> Path:
    """The folder of the run, `out` or one of its own in the home; one that is there already goes on as of today.

    Raises `RequestError` where `out` holds something else, and whatever `made_aside` raises.
    """
    beside = out.parent if out else wanted.home / RUNS
    beside.mkdir(parents=True, exist_ok=True)
    for left_over in beside.glob(f"{ASIDE}*"):
        with held(left_over) as is_free:
            if is_free:  # of a process that was killed while copying
                shutil.rmtree(left_over)
    with made_aside(wanted, beside) as (made, spec):
        name = f"{spec.request.job_name}-{spec.job_id.removeprefix('run-')}"
        folder = out or wanted.home / RUNS / name
        if (folder / REQUEST).exists():
            if read_spec(folder).job_id != spec.job_id:
                raise RequestError(
                    f"{folder} holds a run of something else, or with other settings.",
                    f"Name another --out; that one goes on with: python -m trainer run {shlex.quote(str(folder))}",
                )
            bring_up_to_date(folder, wanted.home, spec.request)
            return folder
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RequestError(f"{folder} is there already and holds no run.", "Name another folder.")
        sync_tree(made)
        made.replace(folder)
        sync(folder.parent)
    return folder


# ------------------------------------------------------------------------------------------------ material


def _of_persona(
    persona: Persona | None, options: argparse.Namespace, shipped: ShippedData, home: Path
) -> list[SourceMaterial]:
    if persona is None:
        return []
    file = Path(options.persona).expanduser()
    known = card_files(shipped.cards, home)
    if not file.is_file():
        card = card_material(shipped, home, persona.id)
    elif file.suffix == ".toml":
        card = given("card", file.name, file.name, OWN_CARD, (file, file.name))
    else:
        table = toml_bytes(table_of(read_any(file), persona.id)).decode()
        stated = Statement(OWN_CARD[0], OWN_CARD[1], day_of(file), OWN_CARD[2])
        card = SourceMaterial("card", f"{persona.id}.toml", file.name, stated, day_of(file), text=table)
    return [card, *(lore_material(shipped, home, persona.id) if persona.id in known else [])]


def _to_learn(
    persona: Persona | None, options: argparse.Namespace, home: Path, shipped: ShippedData, consent: Consent
) -> SourceMaterial:
    """The persona's own log, a data set that was built, or a source in any format."""
    kind = "log" if persona else "messages"
    if options.dataset is None and persona:
        own = shipped.logs / f"{persona.id}.json"
        if not own.is_file():
            raise RequestError(f"{persona.name} has no talk of its own to learn from.", "Name a --dataset.")
        return single("log", own, consent)
    source = source_of(options, home)
    if is_data_set(source.path):
        return data_set(source.path.absolute(), source.path.resolve().name, consent)
    return _source(kind, source, options, persona, consent)


def _to_mix(options: argparse.Namespace, home: Path, consent: Consent) -> SourceMaterial:
    """General dialogue, by path or by name."""
    named = argparse.Namespace(**{**vars(options), "dataset": options.general})
    source = source_of(named, home)
    if is_data_set(source.path):
        raise RequestError(f"{options.general} is a built data set.", "Name it as --dataset, or its sources here.")
    return _source("messages", source, options, None, consent)


def _source(
    kind: str, source: Source, options: argparse.Namespace, persona: Persona | None, consent: Consent
) -> SourceMaterial:
    """A file or folder in any format, under the right that is stated, or that its format says."""
    path = located(source.path)
    if not path.exists():
        raise MaterialError(f"There is no {source.path}.", "Check the path.")
    signed = source.statement or statement_beside(source.path)
    reading = ReadOptions(
        persona=persona,
        right=signed.right if signed else "",
        claimed="" if signed else options.right or "",
        consent=consent,
    )
    right = joint_right(dict.fromkeys(rights_in(path, reading, source.format), 1))
    arrived = day_of(path)
    stated = signed or Statement(right, "", arrived, "")
    if not signed and right == options.right:
        stated = Statement(right, ON_THE_COMMAND_LINE, datetime.now(UTC).date().isoformat(), "")
    origin = source.path.as_posix() if path != source.path else path.resolve().name
    place = f"named/{origin.replace('/', '-')}"
    names = (*options.names, *source.persona_names) if persona else ()
    copies = ((path, place),)
    of = (stated, signed.stated_on if signed else arrived, copies, "", source.format, names)
    return SourceMaterial("log" if kind == "log" else "messages", place, origin, *of)


def _started_from(named: str, home: Path, consent: Consent) -> SourceMaterial:
    """An adapter's folder, or a dialogue adapter of the home by its name."""
    folder = Path(named).expanduser()
    if folder.is_dir():
        return adapter(folder.absolute(), _slug(folder.resolve().name), consent)
    if "/" in named:
        raise RequestError(f"There is no folder {named}.", "Name an adapter's folder, or a dialogue adapter by name.")
    return dialogue_adapter(home, named, consent)


# ------------------------------------------------------------------------------------------------ request


def _request(options: argparse.Namespace, persona: Persona | None, materials: list[SourceMaterial]) -> TrainingRequest:
    base = Path(options.base_model).expanduser()
    start = next((it.origin for it in materials if it.kind == "adapter"), None)
    path = Path(options.dataset).expanduser() if options.dataset else None
    is_path = path is not None and path.exists()
    return request_of(
        job_name=_slug(f"{persona.id if persona else 'dialogue'}-{options.recipe}"),
        base_model=str(base.absolute()) if base.is_dir() else options.base_model,
        dataset=None if is_path else options.dataset,
        dataset_path=str(path.absolute()) if path and is_path else None,
        task_type="persona" if persona else "dialogue",
        persona=persona.id if persona else None,
        general=Path(options.general).name if options.general else None,
        start_from=start,
        recipe=options.recipe,
        hyperparameters=settings_given(options),
    )


def _slug(text: str) -> str:
    """The text as a job's name may be."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")[:64] or "run"
