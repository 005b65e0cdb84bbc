"""`python -m tests.docs`: generates pages from the code, such as docs/settings.md."""

from __future__ import annotations

from tests.docs import model_table
from tests.docs.generated import GENERATED_PAGES, page
from tests.docs.reading import ROOT

for name in GENERATED_PAGES:
    (ROOT / name).write_text(page(name), encoding="utf-8")
    print(name)

table_page = ROOT / model_table.PAGE
table_page.write_text(
    model_table.with_table(table_page.read_text(encoding="utf-8")), encoding="utf-8"
)
print(model_table.PAGE)
