"""`python -m personas.engine.cpu_kernel`: compiles the kernel during set-up, or for an image
without a compiler.
"""

import sys

from personas.engine.cpu_kernel.build import KernelUnavailableError, compile_library

if __name__ == "__main__":
    try:
        print(compile_library())
    except KernelUnavailableError as error:
        sys.exit(f"replies will be computed by torch: {error}")
