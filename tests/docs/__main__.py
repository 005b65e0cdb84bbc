"""`python -m tests.docs`: writes the pages that are made of what the code reads, such as docs/settings.md."""

from __future__ import annotations

from tests.docs.generated import MADE, page
from tests.docs.reading import ROOT

for name in MADE:
    (ROOT / name).write_text(page(name), encoding="utf-8")
    print(name)
