"""A trainer that trains nothing, for tests of what starts it: `fake_trainer.py MODE run FOLDER
[options]`.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

MODE, _, FOLDER_NAME, *OPTIONS = sys.argv[1:] if __name__ == "__main__" else ("", "run", "")
FOLDER = Path(FOLDER_NAME)
PROGRESS = {
    "event": "progress",
    "step": 1,
    "of": 2,
    "epoch": 0.5,
    "loss": 3.25,
    "lr": 1e-4,
    "tokens_per_s": 300.0,
    "eta_s": 4.0,
    "memory_bytes": 2**30,
}


def say(**event: object) -> None:
    print(json.dumps(event), flush=True)


def good(persona: str | None = None) -> None:
    """Write a small adapter folder, once, and say so."""
    say(**PROGRESS)
    _leave_adapter(persona)
    say(event="done", adapter=str(FOLDER / "adapter"), seconds=1.5)


def wordy() -> None:
    """Log a megabyte between two events, and fail at the end of it."""
    for number in range(40):
        sys.stderr.write(f"{number} {'.' * 2**20}\n")
        sys.stderr.flush()
        say(**PROGRESS)
        time.sleep(0.01)
    sys.exit("the roof fell in")


def course() -> None:
    """Tell a course of two epochs as the trainer does, on its second half once `go-on` is in the
    folder; then train.
    """
    say_kept(event="phase", name="training")
    recipe = {"learning_rate": 1e-3, "lora_r": 16, "num_train_epochs": 2.0, "seed": 0}
    run = {"recipe": recipe, "used": recipe, "base_model": "embedded", "threads": 1}
    (FOLDER / "run.json").write_text(json.dumps(run))
    for step in range(1, 25):
        while step == 13 and not (FOLDER / "go-on").exists():
            time.sleep(0.02)
        result = {
            "step": step,
            "of": 24,
            "epoch": step / 12,
            "loss": 4 - step / 12,
            "lr": 1e-3 * (1 - step / 25),
        }
        result |= {"eta_s": 24.0 - step, "done": step / 30, "left_s": 30.0 - step}
        say_kept(**PROGRESS | result | {"seconds": float(step)})
        if step % 12 == 0:
            loss = 4 - step / 12
            say_kept(
                event="epoch",
                epoch=step // 12,
                train_loss=loss + 0.5,
                eval_loss=loss,
                seconds=12.0,
                step=step,
            )
        time.sleep(0.02)
    _leave_adapter()
    say_kept(event="done", adapter=str(FOLDER / "adapter"), seconds=25.0)


def say_kept(**event: object) -> None:
    """Say it, and keep it in the folder."""
    say(**event)
    with (FOLDER / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")


def _leave_adapter(persona: str | None = None) -> None:
    from personas.home.adapters import CONFIG_FILE, WEIGHTS_FILE, write_manifest
    from personas.home.atomic_files import atomic_folder
    from personas.schemas.training import AdapterManifest, JobSpec
    from tests.samples import SCORECARD

    spec = JobSpec.model_validate_json((FOLDER / "request.json").read_bytes())
    if not (FOLDER / "adapter").exists():
        manifest = AdapterManifest(
            persona=persona or spec.request.persona,
            version=spec.version,
            job_id=spec.job_id,
            created_at="2026-11-20T00:00:00Z",
            base_model="embedded",
            base_model_hash="0",
            prompt_version="1",
            lora={"r": 16},
            recipe=spec.request.recipe,
            hyperparameters={},
            training_precision="nf4",
            serving_precision=spec.serving_precision,
            dataset_hash="0",
            dataset={},
            rights={},
            seed=0,
            packages={},
            metrics=SCORECARD,
            checksums={},
        )
        with atomic_folder(FOLDER / "adapter") as aside:
            (aside / WEIGHTS_FILE).write_bytes(os.urandom(64))
            (aside / CONFIG_FILE).write_text("{}")
            write_manifest(aside, manifest)


def holding_out() -> None:
    """Train, and leave what was held out before and one text more, this job's."""
    import numpy as np

    from personas.home.holdout_index import HOLDOUT_FILE, NEW_HOLDOUT_FILE, HoldoutIndex
    from personas.home.pseudonyms import JobKeys

    people_key = JobKeys.in_folder(FOLDER).people
    before = HoldoutIndex.read(FOLDER / HOLDOUT_FILE, people_key)
    one = np.array([int(FOLDER.name[1:])], np.uint64)
    more = HoldoutIndex(
        before.key, one, np.ones((1, 16), np.uint32), np.ones((1, 64), np.uint8), one
    )
    before.merge(more).write(FOLDER / NEW_HOLDOUT_FILE)
    good()


def foreign() -> None:
    """Leave another persona's adapter."""
    good("somebody-else")


def chatty() -> None:
    """Print much that is no event, then train."""
    sys.stdout.buffer.write(b"Downloading: 100%\n\xff\xfe\n[]\n" + b"x" * 300_000 + b"\n")
    say(event="unheard-of")
    good()


def failing() -> None:
    """Fail with a cause."""
    say(event="failed", cause="The log is empty.", advice="Fill it.")
    sys.exit(1)


def full() -> None:
    """Fail for a reason that will pass."""
    say(event="failed", cause="The disk is full.", advice="Free some space.", retry=True)
    sys.exit(1)


def dying() -> None:
    """End without a word on stdout."""
    sys.exit("Traceback:\n  a line\nRuntimeError: the roof fell in")


def silent() -> None:
    """End without a word at all."""
    sys.exit(7)


def nothing() -> None:
    """End well without a word or an adapter."""


def killed() -> None:
    """Die as the kernel lets a process die when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def polite() -> None:
    """Stop when asked."""

    def stop(*_: object) -> None:
        say(event="failed", cause="stopped", retry=True)
        os._exit(143)

    signal.signal(signal.SIGTERM, stop)
    _wait()


def stubborn() -> None:
    """Do not stop when asked."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _wait()


def hanging() -> None:
    """Report nothing, and do not stop when asked: the main thread hangs."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)


def beating() -> None:
    """Train so slowly that only heartbeats come for some time."""
    for _ in range(20):
        say(event="heartbeat")
        time.sleep(0.1)
    good()


def endless() -> None:
    """Train on and on; stop when asked."""
    say(event="estimate", seconds=1.0, memory_bytes=2**20)
    while True:
        say(**PROGRESS)
        time.sleep(0.05)


def greedy() -> None:
    """Take 300 MiB of memory, in a process of its own."""
    if not os.fork():
        held = os.urandom(2**20) * 300
        time.sleep(60)
        del held
    endless()


def parent() -> None:
    """Train, and leave a process that keeps standard output open; with `own-session` in the folder
    in its own group.
    """
    good()
    if child := os.fork():
        (FOLDER / "grandchild").write_text(str(child))
        sys.exit(0)
    if (FOLDER / "own-session").exists():
        os.setsid()
    time.sleep(60)


def flooding() -> None:
    """Print without end what is no event."""
    say(**PROGRESS)
    while True:
        sys.stdout.write("noise\n" * 1000)


def deaf() -> None:
    """Hold the folder's lock in a step without end; once another has done that, train when the lock
    is free.
    """
    from filelock import FileLock, Timeout

    from personas.home.job_attempt import TRAINER_FILE, record_trainer

    try:
        lock = FileLock(FOLDER / "lock", timeout=0)
        lock.acquire()
    except Timeout:
        sys.exit(3)
    if (FOLDER / TRAINER_FILE).exists():
        good()
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    record_trainer(FOLDER)
    time.sleep(60)


def stepping() -> None:
    """Do 15 steps, of which those in the folder are done; one time in six, become deaf in a step
    without end.
    """
    import random
    import threading

    from filelock import FileLock, Timeout

    from personas.home.job_attempt import record_trainer

    try:
        lock = FileLock(FOLDER / "lock", timeout=0)
        lock.acquire()
    except Timeout:
        sys.exit(3)
    record_trainer(FOLDER)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    steps = FOLDER / "steps"
    deaf_at = random.Random(os.getpid()).randrange(90)
    for step in range(len(steps.read_text().split()) + 1 if steps.exists() else 1, 16):
        if step == deaf_at:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(60)
        if ended.is_set():
            say(event="failed", cause="stopped", retry=True)
            os._exit(143)
        time.sleep(0.04)
        with steps.open("a") as file:
            file.write(f"{step}\n")
        say(**PROGRESS | {"step": step, "of": 15})
    good()


def locked_once() -> None:
    """Find the folder locked the first time."""
    seen = FOLDER / "seen"
    if not seen.exists():
        seen.touch()
        sys.exit(3)
    good()


def locked() -> None:
    """Find the folder locked always."""
    sys.exit(3)


def orphan() -> None:
    """Tell when the one who started it has died."""
    (FOLDER / "pid").write_text(str(os.getpid()))
    sys.stdin.read()
    (FOLDER / "end-of-file").touch()


def listening() -> None:
    """Repeat what is said on standard input; train once it says to go on for the second time."""
    say(event="phase", name="training", detail="ready")
    received = []
    while received.count("go") < 2:
        received.append(sys.stdin.readline().strip())
        say(event="phase", name="training", detail=received[-1])
    good()


def telling() -> None:
    """Fail, telling what was passed on."""
    place = {"cwd": str(Path.cwd()), "session": os.getsid(0), "group": os.getpgrp()}
    say(event="failed", cause=json.dumps({"options": OPTIONS, "environ": dict(os.environ)} | place))
    sys.exit(1)


def _wait() -> None:
    say(**PROGRESS)
    time.sleep(60)


if __name__ == "__main__":
    globals()[MODE]()
