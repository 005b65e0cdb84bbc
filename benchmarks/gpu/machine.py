"""The machine of a measurement: its card and packages, and a card's memory as a limit."""

import importlib.metadata
import os
import platform

GIB = 2**30
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")


def describe_machine() -> str:
    """Name the card with its driver, or the processor, and the packages."""
    import torch  # takes seconds

    from personas.models.graphics_cards import list_gpus
    from trainer.machine import total_memory_bytes

    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    python = f"Python {platform.python_version()}"
    if not torch.cuda.is_available():
        memory = f"{total_memory_bytes() / GIB:.0f} GiB"
        return (
            f"No graphics card: {os.cpu_count()} cores of {platform.machine()}, {memory}. "
            f"{python}, {packages}."
        )
    card = torch.cuda.get_device_properties(0)
    driver = next((gpu.driver for gpu in list_gpus()), "unknown")
    cuda = f"driver {driver}, CUDA {torch.version.cuda}"
    return f"{card.name}, {card.total_memory / GIB:.0f} GiB, {cuda}. {python}, {packages}."


def cap_gpu_memory(card_gib: int) -> None:
    """Limit this process to a smaller card's memory; nothing without CUDA."""
    import torch  # takes seconds

    if torch.cuda.is_available():
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, card_gib * GIB / whole))


def require_gpu(purpose: str, tiny: str) -> None:
    """Raise `SystemExit` saying what is missing if no graphics card can be used.

    `purpose` says what needs which card, `tiny` is the command that runs without one.
    """
    import torch  # takes seconds

    if torch.cuda.is_available():
        return
    build = torch.version.cuda
    missing = (
        "torch finds no NVIDIA card"
        if build
        else f"this torch ({torch.__version__}) is a build without CUDA"
    )
    raise SystemExit(
        f"{purpose}: {missing}.\n"
        "Install a CUDA build (make setup TORCH_ARGS='--index-url "
        "https://download.pytorch.org/whl/cu128'), check "
        f"nvidia-smi, or run the same with tiny shapes on this machine: {tiny}"
    )
