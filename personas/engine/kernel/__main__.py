"""`python -m personas.engine.kernel`: compile the kernel ahead, in setting up and for an image without a compiler."""

from __future__ import annotations

import sys

from personas.engine.kernel.build import NoKernelError, compile_ahead

if __name__ == "__main__":
    try:
        print(compile_ahead())
    except NoKernelError as error:
        sys.exit(f"replies will be computed by torch: {error}")
