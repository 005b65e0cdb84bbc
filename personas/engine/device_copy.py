"""Copies from the host's memory to a model's device that the host does not wait for."""

from typing import Any


def copy_to_device(tensor: Any, device: Any) -> Any:
    """Return a host's tensor on a device.

    A copy from pageable memory would wait for everything that the GPU has been told before; torch
    keeps the pinned memory until the copy is done.
    """
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
