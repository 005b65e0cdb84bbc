"""Measures on a machine that has CUDA and PyTorch and nothing else: `python3 run.py [options]`.

Unpacks the packages beside this file, and runs `python -m benchmarks.gpu run` with these options; the
result goes to `$OUT`, or to this folder. Imports nothing but the standard library.
"""

import os
import subprocess  # nosec B404  # this Python
import sys
import tarfile
import tempfile
from pathlib import Path

CODE_FOLDER = "code"
INPUTS_FOLDER = "inputs"
SITE_FILE = "site.tar.xz"


def main() -> int:
    """Unpack, run, and return the exit code."""
    folder = Path(__file__).resolve().parent
    out = os.environ.get("OUT") or str(folder)
    with tempfile.TemporaryDirectory(prefix="understudy-gpu-site-") as site:
        with tarfile.open(folder / SITE_FILE) as archive:
            # extractall's `filter` is unknown to Python 3.11 before 3.11.4, such as Debian 12's.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(site)  # nosec B202  # written by `pack`
        paths = [str(folder / CODE_FOLDER), site, os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        command = [sys.executable, "-m", "benchmarks.gpu", "run", "--out", out]
        command += ["--inputs", str(folder / INPUTS_FOLDER), *sys.argv[1:]]
        return subprocess.run(command, env=environment, cwd=folder).returncode  # nosec B603


if __name__ == "__main__":
    sys.exit(main())
