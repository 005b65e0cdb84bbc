r"""Writes preference pairs that no member has to vote on: logged replies against what the base
model says by itself.

python examples/contrast_pairs.py ~/.understudy/jobs/JOB contrast.jsonl
python -m trainer preference --adapter ~/.understudy/jobs/JOB/adapter --pairs contrast.jsonl --method dpo \
    --set learning_rate=5e-5 --set preference_share=1

JOB is the folder of the job that trained the version. The chosen replies are those that it was
trained on, so none is held out; the rejected ones are the base model's, without card and lore,
after the idea of Maiya et al. (Open Character Training, arXiv 2511.01689).
docs/quality.md (Options) has the gain. The file contains the log's texts: delete it after
the training, since erasing a member's data does not reach it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from personas.engine.llm_engine import LLMEngine
from personas.engine.serving_precision import choose_precision
from personas.errors import RequestError, UnderstudyError
from personas.home.built_dataset import TRAIN_FILE
from personas.home.job_folder import DATASET_FOLDER, read_spec
from personas.home.preferences import COMPARISON, PreferenceRecord, PromptTurn, preferences_to_jsonl
from personas.models.base_model import BaseModel, locate, recommended_sampling
from personas.prompt.renderer import EXAMPLE_USER
from personas.schemas.chat import ChatRequest, Turn
from trainer.dataset.dataset import SampleRecord
from trainer.dataset.run_dataset import RunDataset

NOBODY = "0" * 32  # no member chose: all pairs are this one's, which preference_share=1 allows
DEFAULT_PAIRS = 330  # the trainer learns from 300 and more, and leaves some out
REPLIES_AT_ONCE = 8


def main() -> int:
    """Return the exit code: 0 written, 1 could not be written, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "job", type=Path, metavar="JOB", help="the folder of the job that trained the version"
    )
    parser.add_argument(
        "out", type=Path, metavar="FILE", help="where to write the pairs; it must not exist"
    )
    parser.add_argument(
        "--pairs", type=int, default=DEFAULT_PAIRS, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="draws the exchanges and the replies (default: 0)"
    )
    options = parser.parse_args()
    if options.pairs < 1:
        parser.error("--pairs has to be 1 or more")
    try:
        job = options.job.expanduser()
        base = locate(read_spec(job).request.base_model)
        exchanges = draw_exchanges(job, options.pairs, options.seed)
        write_file(options.out.expanduser(), exchanges, base, options.seed)
    except FileExistsError:
        print(f"{options.out} exists. Name another file, or remove it.", file=sys.stderr)
        return 1
    except FileNotFoundError:
        print(
            f"There is no folder {options.out.parent}. Create it, or name another file.",
            file=sys.stderr,
        )
        return 1
    except (UnderstudyError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        made = (
            f"{options.out} has the pairs so far"
            if options.out.expanduser().exists()
            else "there are no pairs yet"
        )
        print(f"stopped: {made}", file=sys.stderr)
        return 1
    return 0


def draw_exchanges(job: Path, count: int, seed: int) -> list[SampleRecord]:
    """Draw exchanges that the job trained its persona on, each message once. Raises
    `UnderstudyError` for none.
    """
    records = RunDataset(job / DATASET_FOLDER).records(TRAIN_FILE)
    exchanges = list({it.said.message: it for it in records if it.said.by_persona}.values())
    if not exchanges:
        raise RequestError(
            f"{job} was trained on no replies of a persona.", "Name a persona's job."
        )
    return random.Random(seed).sample(exchanges, min(count, len(exchanges)))  # nosec B311  # repeatable


def write_file(out: Path, exchanges: Sequence[SampleRecord], base: BaseModel, seed: int) -> None:
    """Write a new file that its owner alone can read; an empty one is not kept. Raises
    `UnderstudyError`, `OSError`.
    """
    with os.fdopen(
        os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        try:
            asyncio.run(write_pairs(file, exchanges, base, seed))
        finally:
            if not file.tell():
                out.unlink()


async def write_pairs(
    file: TextIO, exchanges: Sequence[SampleRecord], base: BaseModel, seed: int
) -> None:
    """Generate the base model's replies, several at once, and write a line for each pair to learn
    from.
    """
    engine = LLMEngine(base, choose_precision("auto", base.name).precision)
    await engine.start()
    try:
        for start in range(0, len(exchanges), REPLIES_AT_ONCE):
            batch = exchanges[start : start + REPLIES_AT_ONCE]
            sampling = replace(recommended_sampling(base), seed=seed + start)
            turns = ((Turn(EXAMPLE_USER, it.said.message),) for it in batch)
            streams = [
                engine.submit(ChatRequest(None, asked, sampling=sampling)) for asked in turns
            ]
            replies = ["".join([piece async for piece in stream]) for stream in streams]
            pairs = map(preference, batch, replies)
            file.write(preferences_to_jsonl(pair for pair in pairs if pair))
            print(
                f"\r{start + len(batch)} of {len(exchanges)} pairs",
                end="",
                file=sys.stderr,
                flush=True,
            )
        print(file=sys.stderr)
    finally:
        await engine.close()


def preference(record: SampleRecord, rejected: str) -> PreferenceRecord | None:
    """Return the pair; None if the base model said nothing, or the same."""
    if not rejected.strip() or rejected == record.said.reply:
        return None
    return PreferenceRecord(
        prompt=(PromptTurn(name=EXAMPLE_USER, text=record.said.message),),
        chosen=record.said.reply,
        rejected=rejected,
        kind=COMPARISON,
        by=NOBODY,
        right=record.right,
        at=datetime.now(UTC).date().isoformat(),
    )


if __name__ == "__main__":
    sys.exit(main())
