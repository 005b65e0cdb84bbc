"""Benchmark of training from a card: nine personas, each untrained, from its card, from its card by
another model's replies, from its log, and from card and log, without a judge model.

Measured are voice, estimated sense, knowledge of the lore and contradictions, character under
pressure, voice at turn 40, and the loss on general dialogue, by the functions of the score card.
Nothing that is measured is trained on. Each cell, a persona in one way, is written to
build/bench/personas.json as soon as it is measured. All of it takes many hours on two cores: stop it
at any time, and the same command goes on where it was, also within a training. Runs are kept in
build/bench/personas; remove that folder to train anew.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.personas.subjects import (
    BASE,
    BOTH,
    LOG,
    PERSONAS,
    TAUGHT,
    WAYS,
    Subject,
    Training,
    prepare_subject,
)
from personas.cli_common import read_setting
from personas.errors import RequestError, UnderstudyError
from personas.home.adapters import verify_adapter
from personas.home.atomic_files import lock_folder
from personas.home.job_folder import ADAPTER_FOLDER, material_digest, read_spec
from personas.home.teacher_setting import stated_teacher
from personas.models.base_model import fingerprint, name_from_anywhere
from personas.prompt.renderer import PROMPT_VERSION
from personas.schemas.training import Teacher
from trainer.cli.error_handling import with_error_handling
from trainer.cli.options import BASE_MODEL, SET, TEACHER_OPTIONS, add_options
from trainer.cli.progress_view import EventPrinter, print_line
from trainer.evaluate.generation.reply_tasks import EVALUATION_FOLDER
from trainer.process.environment import configure_process, restart_with_allocator_settings
from trainer.train.job import PreparedJob, prepare_job

if TYPE_CHECKING:
    from benchmarks.personas.cells import Cell
    from benchmarks.personas.measuring import Measuring

RESULT_FILE = Path("build/bench/personas.json")
RUNS_FOLDER = Path("build/bench/personas")
FORMAT = 1
"""Part of each cell's key: raise it when the same settings give other figures."""
HOME_FOLDER = "home"
NICENESS = 5
EXAMPLES = """\
examples:
  python -m benchmarks.personas --quick --personas mizzle --ways base card
  python -m benchmarks.personas --ways base card --blind build/bench/blind.md
  python -m benchmarks.personas --quick --teacher bigger.gguf --teacher-licence Apache-2.0
  python -m benchmarks.personas --base-model build/models/Qwen2.5-Coder-0.5B-Instruct-Q4_K_M.gguf
"""


@dataclass(frozen=True)
class Benchmark:
    """What is measured, and where the cells are kept."""

    training: Training
    quick: bool
    file: Path
    measuring: Measuring

    def run(self, personas: Sequence[str], ways: Sequence[str]) -> tuple[list[Cell], list[str]]:
        """Return the cells of the personas and ways, those that are missing measured now; and what
        could not be measured, with reasons.
        """
        cells: list[Cell] = []
        failures: list[str] = []
        for persona in personas:
            subject = prepare_subject(persona, self.training)
            for way in (way for way in subject.ways if way in ways):
                print_line(f"{persona}, {way}")
                try:
                    cells.append(self._cell(subject, way))
                except UnderstudyError as error:  # the others can be measured
                    failures.append(f"{persona}, {way}: {error}")
                    print_line(failures[-1])
        return cells, failures

    def _cell(self, subject: Subject, way: str) -> Cell:
        """Return the stored cell; else train what is to be trained, measure, and store it."""
        from benchmarks.personas.cells import Cell, find_cell, read_cells, store_cell

        folder = subject.make_run(way)
        spec = read_spec(folder)
        teacher = spec.request.teacher
        wanted = Cell(
            base_model=self.training.base_model,
            teacher=teacher.model if teacher else "",
            persona=subject.name,
            way=way,
            quick=self.quick,
            key=self._key(subject, spec.job_id if way != BASE else ""),
        )
        stored = find_cell(read_cells(self.file), wanted)
        if stored:
            return stored
        job = subject.job
        adapter: Path | None = None
        if way != BASE:
            job, adapter = self._train(folder)
            wanted = replace(wanted, training_s=_run_seconds(adapter))
        measured = self.measuring.measure(wanted, subject, job, adapter)
        store_cell(self.file, measured)
        return measured

    def _train(self, folder: Path) -> tuple[PreparedJob, Path]:
        """Train a run unless it is trained; a stopped one goes on. Raises `UnderstudyError`."""
        from trainer.run import run_job
        from trainer.train.training_run import RunControl

        printer = EventPrinter(sys.stderr)
        run_job(folder, RunControl(emit=printer.show, home=self.training.home))
        adapter = folder / ADAPTER_FOLDER
        verify_adapter(adapter)
        return prepare_job(folder, read_spec(folder)), adapter

    def _key(self, subject: Subject, trained: str) -> str:
        """Hash all that a cell depends on; `trained` is the run's id."""
        from trainer.evaluate.generation.reply_generator import served_sampling

        parts = (
            FORMAT,
            trained,
            subject.job.spec.job_id,
            fingerprint(subject.job.base),
            PROMPT_VERSION,
            read_setting("LORE_ENCODER"),
            asdict(self.measuring.extent),
            asdict(served_sampling(subject.job.base)),
            [(question.text, question.reworded) for question in subject.questions],
            material_digest(EVALUATION_FOLDER),
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def _run_seconds(adapter: Path) -> float:
    from trainer.report.adapter_docs import read_run_seconds

    return read_run_seconds(adapter)


def make_benchmark(options: argparse.Namespace) -> Benchmark:
    """Make the benchmark of the options. Raises `UnderstudyError`."""
    # These load torch, which takes seconds.
    from benchmarks.personas.measuring import FULL, QUICK, Measuring
    from trainer.evaluate.measurement_cache import MeasurementCache

    home = options.out / HOME_FOLDER
    base_model = name_from_anywhere(options.base_model)
    teacher = stated_teacher(
        options.teacher, options.teacher_model, licence=options.teacher_licence
    )
    words = teacher_words(teacher) if teacher else ()
    training = Training(home.absolute(), base_model, words, tuple(options.settings))
    training.prepare_home()
    return Benchmark(
        training=training,
        quick=options.quick,
        file=options.file,
        measuring=Measuring(
            QUICK if options.quick else FULL, MeasurementCache.at_home(home), print_line
        ),
    )


def teacher_words(teacher: Teacher) -> tuple[str, ...]:
    """Return the options of `trainer train` that name a teacher."""
    named = ("--teacher", teacher.url or teacher.model, "--teacher-licence", teacher.licence)
    return (*named, "--teacher-model", teacher.model) if teacher.url else named


def run(options: argparse.Namespace) -> int:
    """Measure, and print the report. Raises `UnderstudyError`."""
    from benchmarks.personas.report import blind_sheet, format_report

    options.out.mkdir(parents=True, exist_ok=True)
    with lock_folder(options.out) as is_free:
        if not is_free:
            raise RequestError(f"Another process measures in {options.out}.", "Wait for it.")
        cells, failures = make_benchmark(options).run(options.personas, options.ways)
    if cells:
        print(format_report(cells))
        print(f"written to {options.file}")
    if options.blind and cells:
        sheet, key = blind_sheet(cells)
        key_file = options.blind.with_suffix(f".key{options.blind.suffix}")
        options.blind.write_text(sheet, encoding="utf-8")
        key_file.write_text(key, encoding="utf-8")
        print(f"replies without their sources: {options.blind}; the key: {key_file}")
    for failure in failures:
        print(f"not measured: {failure}")
    return 1 if failures else 0


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.personas",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--personas",
        choices=PERSONAS,
        default=list(PERSONAS),
        nargs="+",
        metavar="NAME",
        help=f"measure these (default: all: {', '.join(PERSONAS)})",
    )
    parser.add_argument(
        "--ways",
        choices=tuple(WAYS),
        default=list(WAYS),
        nargs="+",
        metavar="WAY",
        help=f"train in these ways (default: {', '.join(WAYS)}); {LOG} and {BOTH} need a log, which "
        f"the characters have not, and {TAUGHT} a teacher",
    )
    parser.add_argument("--quick", action="store_true", help="fewer replies, a single long talk")
    add_options(parser, [BASE_MODEL, *TEACHER_OPTIONS, SET])
    parser.add_argument(
        "--blind",
        type=Path,
        metavar="FILE",
        help="write replies of each way side by side without their sources; the key into FILE.key",
    )
    parser.add_argument(
        "--out", type=Path, default=RUNS_FOLDER, help=f"folder of the runs (default: {RUNS_FOLDER})"
    )
    parser.add_argument(
        "--file", type=Path, default=RESULT_FILE, help=f"the cells (default: {RESULT_FILE})"
    )
    return parser


def main() -> int:
    """Run the command line."""
    options = make_parser().parse_args()
    restart_with_allocator_settings()
    configure_process(NICENESS, None)
    logging.getLogger().setLevel(logging.WARNING)  # phases are shown
    return with_error_handling(run)(options)


if __name__ == "__main__":
    sys.exit(main())
