"""Templates of a kind of text: blocks with slots in braces."""

from dataclasses import dataclass

SEPARATOR = "\n%%\n"


@dataclass(frozen=True)
class TemplatePair:
    """The blocks of a kind in a language, separated by a line of `%%`.

    Each block of `personal` has a slot for personal data; no block of `neutral` has one.
    """

    personal: str
    neutral: str

    def blocks(self, personal: bool) -> list[str]:
        """Returns the blocks with personal data, or those without."""
        text = self.personal if personal else self.neutral
        return [block.strip("\n") for block in text.split(SEPARATOR)]


@dataclass(frozen=True)
class TextKind:
    """A kind of text: name, templates by language, and whether people write it carelessly."""

    name: str
    templates: dict[str, TemplatePair]
    casual: bool = False
