"""Writes a folder that measures on a machine without a package index: code, samples, tokenizer, and
the packages that PyTorch does not bring, by the hashes of requirements/.
"""

import importlib.metadata
import shutil
import subprocess  # nosec B404  # pip of this environment
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.gpu import unpack
from benchmarks.gpu.inputs import write_inputs

PROJECT = Path(__file__).parents[2]
REQUIREMENTS = ("lock.txt", "build.txt", "gpu.txt")
"""Lists with hashes, in the folder of that name."""
CODE = ("benchmarks", "personas", "trainer")
LEFT_OUT_OF_CODE = ("__pycache__", "studies", "scale", "*.png", "*.svg", "*.crf.xz")
ROOTS = (
    "accelerate", "anyascii", "bitsandbytes", "charset-normalizer", "datasets", "filelock", "huggingface_hub",
    "jinja2", "liger-kernel", "markdown-it-py", "numpy", "orjson", "peft", "phonenumbers", "psutil", "pydantic",
    "python-crfsuite", "python-dotenv", "pyyaml", "regex", "safetensors", "threadpoolctl", "tokenizers", "tqdm",
    "transformers", "trl",
)  # fmt: skip
"""What the measured code imports."""
BROUGHT = "torch"
"""What is there: this package, and what it requires."""
RENEWED = ("filelock", "fsspec", "jinja2", "markupsafe", "typing-extensions")
"""Small packages that torch requires in any version, and what is measured only in newer ones."""
WITHOUT_A_PLACE_HERE = ("liger-kernel",)
"""Packages for cards, which are not installed here; they require what is there."""
UNUSED_PACKAGES = ("hf-xet", "typer", "click", "rich", "pygments", "shellingham")
"""Nothing is fetched from a hub there, and no command line of the libraries is called."""
NEWEST_GLIBC_MINOR = 39
UNUSED_FILES = (
    "**/tests/**/*", "**/*.pyi", "**/*.pyx", "**/*.pxd", "**/*.h", "**/*.hpp", "**/*.a", "bin/*",
    "pyarrow/include/**/*", "pyarrow/*flight*",
    "pyarrow/*s3*", "pyarrow/libarrow*.so", "pyarrow/*.so.*.*.*",
    "phonenumbers/geodata/*", "phonenumbers/carrierdata/*", "phonenumbers/tzdata/*",
)  # fmt: skip
FOLDER_LIMIT_MIB = 64
RUN_FILE = "run.py"
LISTED_PACKAGES = 8


def write_pack(folder: Path, python: str, cuda: str, *, without: Sequence[str] = ()) -> int:
    """Write the folder for a machine with this Python on x86-64 Linux and this CUDA (`13.0`), but
    `without` packages that are there; return its size in bytes.

    Raises `SystemExit` if it is larger than `FOLDER_LIMIT_MIB`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ignore = shutil.ignore_patterns(*LEFT_OUT_OF_CODE)
    for package in CODE:
        shutil.copytree(PROJECT / package, folder / unpack.CODE_FOLDER / package, ignore=ignore)
    write_inputs(folder / unpack.INPUTS_FOLDER)
    shutil.copy(unpack.__file__, folder / RUN_FILE)
    with tempfile.TemporaryDirectory(prefix="understudy-gpu-pack-") as scratch:
        site = Path(scratch, "site")
        install_packages(site, needed_packages(without), python)
        remove_unused(site, cuda)
        with tarfile.open(folder / unpack.SITE_FILE, "w:xz") as archive:
            archive.add(site, ".")
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if size > FOLDER_LIMIT_MIB * 2**20:
            raise SystemExit(
                f"{folder} has {size / 2**20:.1f} MiB; machines take {FOLDER_LIMIT_MIB}. The largest "
                f"packages: {', '.join(largest_packages(site))}. Name those that are there with "
                "--without."
            )
    return size


def needed_packages(without: Sequence[str]) -> list[str]:
    """Return the packages of the measured code and what they require, without those that PyTorch
    brings.
    """
    brought = set(_with_requirements([BROUGHT])) - set(RENEWED)
    left_out = brought | {str(canonicalize_name(name)) for name in (*without, *UNUSED_PACKAGES)}
    return sorted(set(_with_requirements(ROOTS)) - left_out)


def _with_requirements(names: Iterable[str]) -> Iterator[str]:
    known: set[str] = set()
    waiting = [str(canonicalize_name(name)) for name in names]
    while waiting:
        name = waiting.pop()
        if name in known:
            continue
        known.add(name)
        yield name
        if name in WITHOUT_A_PLACE_HERE:
            continue
        for line in importlib.metadata.requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(str(canonicalize_name(requirement.name)))


def install_packages(site: Path, names: Sequence[str], python: str) -> None:
    """Install packages for x86-64 Linux with this Python into a folder, by their hashes."""
    wanted = site.with_name("requirements.txt")
    wanted.write_text("\n".join(locked_lines(names)) + "\n", encoding="utf-8")
    platforms = ["manylinux2014_x86_64", "manylinux1_x86_64", "manylinux2010_x86_64"]
    # pip matches the number exactly.
    platforms += [f"manylinux_2_{minor}_x86_64" for minor in range(5, NEWEST_GLIBC_MINOR + 1)]
    command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    command += ["--target", str(site), "--no-deps", "--no-compile", "--require-hashes"]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    command += [f"--platform={platform}" for platform in platforms]
    subprocess.run([*command, "--requirement", str(wanted)], check=True)  # nosec B603


def locked_lines(names: Sequence[str]) -> list[str]:
    """Return the lines of these packages in the lists of requirements. Raises `SystemExit` if one
    is missing.
    """
    blocks: dict[str, list[str]] = {}
    for file in REQUIREMENTS:
        block: list[str] = []
        for line in (PROJECT / "requirements" / file).read_text(encoding="utf-8").splitlines():
            if line and line[0] not in " #":
                block = blocks.setdefault(str(canonicalize_name(line.partition("==")[0])), [])
            if not line.lstrip().startswith("#"):
                block.append(line)
    if missing := set(names) - blocks.keys():
        raise SystemExit(f"requirements/ has no hashes of {', '.join(sorted(missing))}.")
    return [line for name in names for line in blocks[name]]


def remove_unused(site: Path, cuda: str) -> None:
    """Remove tests, sources, and libraries of bitsandbytes for other processors and versions of
    CUDA.
    """
    kept = (
        f"libbitsandbytes_cuda{cuda.replace('.', '')}.so",
        "libbitsandbytes_cpu.so",
    )
    libraries = [*site.glob("bitsandbytes/lib*")]
    if libraries and not (site / "bitsandbytes" / kept[0]).exists():
        names = ", ".join(sorted(library.name for library in libraries))
        raise SystemExit(f"bitsandbytes has no library for CUDA {cuda}: {names}.")
    unused = [library for library in libraries if library.name not in kept]
    for pattern in UNUSED_FILES:
        unused += site.glob(pattern)
    for file in unused:
        if file.is_file():
            file.unlink()


def largest_packages(site: Path) -> list[str]:
    """Name the largest packages with their unpacked sizes."""
    sizes = {
        folder.name: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        for folder in site.iterdir()
    }
    largest = sorted(sizes, key=lambda name: -sizes[name])[:LISTED_PACKAGES]
    return [f"{name} {sizes[name] / 2**20:.0f} MiB" for name in largest]
