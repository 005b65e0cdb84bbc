"""Known vulnerabilities of the locked packages, by pip-audit (`make audit`).

pip-audit itself ends with "no known vulnerabilities" where its service knows none of the packages,
and with the same exit code where the service cannot be reached as where it found something. Here
these are four results.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements"
OTHER_LISTS = ("torch-cpu.txt", "vllm.txt", "vllm-cuda.txt")
"""The same torch once more, and environments of their own, with other versions of the same
packages.
"""
NETWORK_ERRORS = ("requests.exceptions.", "urllib3.exceptions.", "pip_audit._service.interface.")


@dataclass(frozen=True)
class AuditResult:
    state: Literal["sound", "vulnerable", "not checked", "failed"]
    lines: tuple[str, ...]


def audit(lists: Sequence[Path], options: Sequence[str] = ()) -> AuditResult:
    """Ask pip-audit about every package of these lists. `options` may name another service."""
    files = [word for path in lists for word in ("--requirement", str(path))]
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--disable-pip",
        "--require-hashes",
        "--progress-spinner",
        "off",
    ]
    done = subprocess.run(
        [*command, "--format", "json", *options, *files],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        said = done.stderr.strip().splitlines()[-1:] or ["pip-audit said nothing"]
        is_network = said[0].startswith(NETWORK_ERRORS)
        return AuditResult("not checked" if is_network else "failed", tuple(said))
    return audit_result(packages)


def audit_result(packages: list[dict[str, Any]]) -> AuditResult:
    """The result of pip-audit's JSON: its list of dependencies."""
    found = [
        f"{one['name']} {one['version']}: {fault['id']}, fixed in "
        f"{', '.join(fault['fix_versions']) or 'no version'}"
        for one in packages
        for fault in one.get("vulns", [])
    ]
    skipped = [str(one["skip_reason"]) for one in packages if "skip_reason" in one]
    if found:
        return AuditResult("vulnerable", tuple(found))
    if skipped:
        known = f"{len(packages) - len(skipped)} of {len(packages)} packages checked"
        return AuditResult("not checked", (known, *skipped[:3]))
    return AuditResult("sound", (f"{len(packages)} checked",))


def main() -> int:
    """Exit code 1 for a vulnerability or a failure; with REQUIRE_AUDIT=1 also where nothing could
    be checked.
    """
    lists = [path for path in sorted(REQUIREMENTS.glob("*.txt")) if path.name not in OTHER_LISTS]
    result = audit(
        [REQUIREMENTS / "build.txt"]
    )  # one package tells whether the service can be asked at all
    if result.state in ("sound", "vulnerable"):
        result = audit(lists)
    print(
        f"Known vulnerabilities of the locked packages: {result.state}", *result.lines, sep="\n  "
    )
    tolerated = ("sound",) if os.environ.get("REQUIRE_AUDIT") == "1" else ("sound", "not checked")
    return 0 if result.state in tolerated else 1


if __name__ == "__main__":
    sys.exit(main())
