"""Compiles the translations when the project is installed or a wheel is built, and by itself
(`python hatch_build.py`) after they have changed.
"""

import io
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LOCALE_FOLDER = Path(__file__).parent / "bot" / "locale"


class CatalogueBuildHook(BuildHookInterface[Any]):
    """Compiles the catalogues before a wheel is built, also the one of an editable installation."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile all catalogues, and have the wheel include them, which git ignores."""
        compile_catalogues()
        build_data["artifacts"].append("bot/locale/*/LC_MESSAGES/*.mo")


def compile_catalogue(catalogue: Catalog) -> bytes:
    """Return a catalogue as Python's gettext reads it."""
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    return compiled.getvalue()


def compile_catalogues(folder: Path = LOCALE_FOLDER) -> None:
    """Write the `.mo` file beside each `.po` file of a folder of languages."""
    for path in folder.glob("*/LC_MESSAGES/*.po"):
        with path.open("rb") as file:
            catalogue = read_po(file, locale=path.parts[-3], abort_invalid=True)
        # A bot that starts meanwhile reads the whole file, the old or the new one.
        written = path.with_suffix(".mo.new")
        written.write_bytes(compile_catalogue(catalogue))
        written.replace(path.with_suffix(".mo"))


if __name__ == "__main__":
    compile_catalogues()
