"""Markdown lore, recognised to tell the user where it belongs."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from personas.errors import LoreError, MaterialError
from personas.lore.lore_folder import OwnerNames, parse_lore
from personas.lore.passages import split_markdown
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat

MAX_BYTES = 64 << 20
SUFFIXES = (".md", ".markdown")
LORE_HINT = "lore belongs in data/rag-resources or in a folder given with --lore"
NO_PERSONA = "nobody, as neither its front matter nor a folder names its persona"


def read(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Reject each passage as lore, naming its owner, or the reason why it has none among
    `options.personas`.
    """
    try:
        stated, text = parse_lore(file.read(MAX_BYTES).decode(), file.name)
    except UnicodeDecodeError as error:
        raise MaterialError(
            f"{file.name} is not UTF-8 (byte {error.start}).", "Save it as UTF-8."
        ) from None
    except LoreError as error:
        raise MaterialError(error.message, error.advice) from None
    names = OwnerNames(options.personas)
    below = PurePosixPath(file.name)
    if len(below.parts) > 1:
        below = PurePosixPath(*below.parts[1:])  # without the folder that is read
    owners, fault = names.resolve(stated, below)
    nobody = f"nobody ({fault})"
    if not options.personas:
        # Whose lore it may be is unknown, so what is written there is taken at its word.
        owners = stated or tuple(filter(None, [_folder_persona(file.name)]))
        nobody = NO_PERSONA
    whose = " and ".join(owners) or nobody
    for number, (heading, _) in enumerate(split_markdown(text), start=1):
        yield RejectedRecord(
            f"passage {number} ({heading})", f"lore of {whose}, not dialogue; {LORE_HINT}"
        )


def _folder_persona(name: str) -> str:
    """Return the folder of a file below the one that is read."""
    parts = PurePosixPath(name).parts
    return parts[1] if len(parts) > 2 else ""


def _recognises(peek: Peek) -> bool:
    if peek.kind not in ("text", "CSV", "TSV", "YAML"):
        return False
    if _has_front_matter(peek):
        return True
    if not peek.name.lower().endswith(SUFFIXES):
        return False
    # Text with tables or lists may look like CSV or YAML; a heading tells it from these.
    return peek.kind == "text" or any(line.startswith("#") for line in peek.text.splitlines())


def _has_front_matter(peek: Peek) -> bool:
    """Report whether front matter names a persona, which only lore does."""
    if not peek.text.startswith("---"):
        return False
    try:
        return bool(parse_lore(peek.text, peek.name)[0])
    except LoreError:
        return False


EXPECTED = f"markdown, in a folder for each persona or with `persona:` on top; {LORE_HINT}"
NOTE = (
    "Lore is no dialogue: put it into data/rag-resources, or name its folder with --lore (see "
    "`lore files`)."
)
FORMAT = SourceFormat("lore", "Lore", EXPECTED, matches=_recognises, read=read, note=NOTE)
