"""NVIDIA's graphics cards as their driver describes them, without torch."""

import subprocess  # nosec B404  # nvidia-smi, which the driver brings
from dataclasses import dataclass

NVIDIA_SMI_COMMAND = ("nvidia-smi", "--format=csv,noheader,nounits")
NVIDIA_SMI_TIMEOUT_S = 10


@dataclass(frozen=True)
class Gpu:
    """A graphics card as its driver describes it. `capability` is CUDA's compute capability."""

    name: str
    driver: str
    capability: float
    memory_bytes: int
    free_bytes: int


def list_gpus() -> list[Gpu]:
    """Return the NVIDIA cards that `nvidia-smi` lists; none if it does not run."""
    fields = "name,driver_version,compute_cap,memory.total,memory.free"
    try:
        result = subprocess.run(  # nosec B603
            [*NVIDIA_SMI_COMMAND, f"--query-gpu={fields}"],
            capture_output=True,
            text=True,
            timeout=NVIDIA_SMI_TIMEOUT_S,
            check=True,
        )
        return [_parse_gpu(line) for line in result.stdout.splitlines() if line.strip()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def _parse_gpu(line: str) -> Gpu:
    # From the right: the name may contain a comma.
    name, driver, capability, total, free = map(str.strip, line.rsplit(",", 4))
    return Gpu(
        name,
        driver,
        float(capability),
        memory_bytes=int(total) * 2**20,
        free_bytes=int(free) * 2**20,
    )
