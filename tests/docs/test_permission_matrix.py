"""docs/slash-commands.md says who may use what, as the code has it."""

from tests.docs.permission_matrix import PAGE, with_table
from tests.docs.reading import ROOT


def test_the_matrix_is_up_to_date():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert with_table(text) == text, f"{PAGE} is not up to date: python -m tests.docs"
