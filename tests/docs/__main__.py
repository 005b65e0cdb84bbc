"""`python -m tests.docs`: generates pages from the code, such as docs/settings.md."""

from __future__ import annotations

from tests.docs import model_table, permission_matrix
from tests.docs.generated import GENERATED_PAGES, page
from tests.docs.reading import ROOT

for name in GENERATED_PAGES:
    (ROOT / name).write_text(page(name), encoding="utf-8")
    print(name)

for table in (model_table, permission_matrix):
    table_page = ROOT / table.PAGE
    table_page.write_text(
        table.with_table(table_page.read_text(encoding="utf-8")), encoding="utf-8"
    )
    print(table.PAGE)
