"""`python -m tests.docs`: generates pages from the code, such as docs/settings.md."""

from __future__ import annotations

from tests.docs.generated import GENERATED_PAGES, page
from tests.docs.reading import ROOT

for name in GENERATED_PAGES:
    (ROOT / name).write_text(page(name), encoding="utf-8")
    print(name)
