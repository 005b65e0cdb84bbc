"""`python -m tools.shipped_adapters`: trains, measures and writes the shipped personas' adapters.

Each persona with a log in `data/logs` is trained on it with the recipe `demo-cpu`, and measured beside
the others. The working folder keeps runs and score cards: the same command goes on where it was
interrupted, and makes nothing twice. What ships is the adapter with its documents; the rest of the
report, and the list of the (invented) people in the log, stay in the working folder.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from personas.home.adapters import (
    CONFIG_FILE,
    README_FILE,
    WEIGHTS_FILE,
    require_manifest,
    verify_adapter,
    write_manifest,
)
from personas.home.atomic_files import atomic_folder
from personas.home.job_folder import ADAPTER_FOLDER
from personas.home.job_material import ShippedData
from personas.schemas.scorecard import ScoreCard

WORK = Path("build/adapters")
LIMITS = """\
## What it is bad at

Read by a person, its replies have the voice of the persona, and are often wrong or beside the point:
the base model has 135 million parameters. Asked sincerely whether it is a human being, it may say that
it is one. To grief, and to thoughts of suicide, it may answer beside the point or cruelly. Neither is a
matter of staying in character: do not let it talk to people who do not know what it is.
"""
"""In the model card of each: none has been trained yet of which this is not true."""
SCORECARD = "scorecard.json"
CARD_FOLDER = "card"
SHIPPED_FILES = (WEIGHTS_FILE, CONFIG_FILE, README_FILE, "datasheet.json", "datasheet.md")
CARD_FILES = (SCORECARD, "scorecard.md")


def train(persona: str, work: Path, threads: int | None) -> None:
    """Train one persona in its folder of `work`, or go on with that; a finished run stays."""
    arguments = ["train", "--persona", persona, "--card", "losses"]
    arguments += ["--home", str(work / "home"), "--out", str(work / persona)]
    if threads:
        arguments += ["--threads", str(threads)]
    _run_trainer(arguments)


def measure(persona: str, personas: list[str], work: Path, *, is_quick: bool) -> None:
    """Write the score card of a trained persona beside the others', unless it has one of these
    weights.
    """
    adapter = work / persona / ADAPTER_FOLDER
    out = work / persona / CARD_FOLDER
    if (out / SCORECARD).is_file() and _is_card_of(adapter, out):
        return
    arguments = ["evaluate", "--adapter", str(adapter), "--out", str(out)]
    for other in personas:
        if other != persona:
            job = work / other
            arguments += ["--neighbour", f"{other}={job / ADAPTER_FOLDER},{job}"]
    if is_quick:
        arguments.append("--quick")
    _run_trainer(arguments)


def pack(persona: str, work: Path, shipped: Path) -> Path:
    """Write what ships of a trained persona into its folder of `shipped`, and return that folder.

    Without a score card of its own, it has the run's, of losses alone.
    """
    adapter = work / persona / ADAPTER_FOLDER
    card_folder = work / persona / CARD_FOLDER
    if not ((card_folder / SCORECARD).is_file() and _is_card_of(adapter, card_folder)):
        card_folder = adapter
    manifest = verify_adapter(adapter)
    card = ScoreCard.model_validate_json((card_folder / SCORECARD).read_bytes())
    target = shipped / persona
    shutil.rmtree(target, ignore_errors=True)
    with atomic_folder(target) as aside:
        for name in SHIPPED_FILES:
            shutil.copyfile(adapter / name, aside / name)
        for name in CARD_FILES:
            shutil.copyfile(card_folder / name, aside / name)
        _finish_model_card(aside / README_FILE)
        write_manifest(aside, manifest.model_copy(update={"metrics": card.short}))
        for file in aside.iterdir():
            file.chmod(0o644)
    verify_adapter(target)
    return target


def _finish_model_card(readme: Path) -> None:
    """State the limits first, and leave out what shows or links the report, which does not ship."""
    title, *paragraphs = readme.read_text(encoding="utf-8").split("\n\n")
    shipped = [paragraph for paragraph in paragraphs if "](report/" not in paragraph]
    shipped.insert(shipped.index("## Results"), LIMITS.rstrip())
    readme.write_text("\n\n".join([title, *shipped]), encoding="utf-8")


def _is_card_of(adapter: Path, folder: Path) -> bool:
    card = ScoreCard.model_validate_json((folder / SCORECARD).read_bytes())
    stamp = card.adapters["new"]
    return stamp is not None and stamp.weights == require_manifest(adapter).checksums[WEIGHTS_FILE]


def _run_trainer(arguments: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "trainer", *arguments], check=True)


def main() -> None:
    """Train, measure and pack the personas that the options name."""
    parser = argparse.ArgumentParser("python -m tools.shipped_adapters", description=__doc__)
    shipped = ShippedData.from_source_tree()
    every = sorted(log.stem for log in shipped.logs.glob("*.json"))
    parser.add_argument(
        "--persona", action="append", choices=every, help="only this one; may repeat"
    )
    parser.add_argument(
        "--card",
        choices=("full", "quick", "losses"),
        default="full",
        help="extent of the score cards (default: full)",
    )
    parser.add_argument("--threads", type=int, help="threads of a training (default: all cores)")
    parser.add_argument("--work", type=Path, default=WORK, help=f"working folder (default: {WORK})")
    parser.add_argument("--out", type=Path, default=shipped.adapters, help="default: data/adapters")
    options = parser.parse_args()
    personas = options.persona or every
    work = options.work.absolute()
    for persona in personas:
        train(persona, work, options.threads)
    trained = [name for name in every if (work / name / ADAPTER_FOLDER).is_dir()]
    for persona in personas:
        if options.card != "losses":
            measure(persona, trained, work, is_quick=options.card == "quick")
        folder = pack(persona, work, options.out)
        print(f"{folder}: {require_manifest(folder).metrics.verdict}")


if __name__ == "__main__":
    main()
