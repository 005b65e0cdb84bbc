from collections.abc import Iterable


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[object]], *, numbers: bool = True) -> str:
    """A markdown table; the first column is text, the others are numbers unless all are text."""
    head = list(head)
    lines = [
        head,
        ["---", *["---:" if numbers else "---"] * (len(head) - 1)],
        *([str(cell) for cell in row] for row in rows),
    ]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
