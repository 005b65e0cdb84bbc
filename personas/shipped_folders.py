"""Folders that ship with the project beside its packages: `data`, `docs` and `requirements`.

In a source tree they are beside `personas`; a wheel has them inside it (pyproject.toml maps them),
because all packages share one folder where it is installed.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _shipped_folder(name: str) -> Path:
    packaged = _PACKAGE / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name


SHIPPED_DATA = _shipped_folder("data")
SHIPPED_DOCS = _shipped_folder("docs")
"""Without their pictures in an installed package."""
SHIPPED_REQUIREMENTS = _shipped_folder("requirements")
IS_SOURCE_TREE = SHIPPED_DATA.parent != _PACKAGE
SETUP_COMMAND = "make setup" if IS_SOURCE_TREE else "reinstall the package understudy"
"""What renews the environment, in advice."""
