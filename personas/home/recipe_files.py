"""The words about a recipe: the comment with which its file begins, `# NAME: what it is for.`"""

from pathlib import Path


def recipe_about(file: Path) -> str:
    """Return the comment at a recipe file's beginning without the name; empty without one."""
    head = file.read_text(encoding="utf-8").split("\n\n")[0]
    lines = [line.removeprefix("#").strip() for line in head.splitlines() if line.startswith("#")]
    about = " ".join(lines).partition(": ")[2]
    return about[:1].upper() + about[1:]


def recipe_summary(file: Path) -> str:
    """Return what a recipe is for, the first sentence of that comment."""
    about = recipe_about(file).split(". ")[0].rstrip(".")
    return f"{about}." if about else ""
