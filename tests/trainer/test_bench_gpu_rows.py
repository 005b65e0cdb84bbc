"""`make gpu-rows`: each row's recipe on a model of its shape; without a card it says what is
missing.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch

from benchmarks import gpu_rows
from benchmarks.gpu_rows import (
    BEGIN,
    END,
    PAGE,
    ROWS,
    RowFigures,
    cap_gpu_memory,
    render_table,
    require_gpu,
    write_between_markers,
)

FIGURES = RowFigures(
    11.9,
    9.5,
    11.8,
    9.6,
    40,
    412.0,
    5 * 2**30,
    1.75,
    "nf4 base, fp16 compute",
    "adamw_8bit",
    ("A note.",),
)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_what_is_missing_and_how_to_run_it_anyway():
    with pytest.raises(
        SystemExit, match=r"needs a graphics card.*(without CUDA|no NVIDIA card)[\s\S]*--tiny"
    ):
        require_gpu()


def test_memory_is_capped_to_the_rows_card(monkeypatch):
    fractions = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda device: type("Card", (), {"total_memory": 24 * 2**30}),
    )
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", fractions.append)
    cap_gpu_memory(6)
    cap_gpu_memory(48)
    assert fractions == [0.25, 1.0]


def test_the_table_replaces_the_last_one_and_tells_what_failed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n\n{BEGIN}\nold\n{END}\n\nAfter.\n")
    write_between_markers(
        page, render_table({ROWS[0]: FIGURES, ROWS[1]: "out of memory"}, "A card.", tiny=False)
    )
    text = page.read_text()
    assert (
        text.startswith(f"# Before\n\n{BEGIN}\nA card.\n")
        and text.endswith(f"{END}\n\nAfter.\n")
        and "old" not in text
    )
    assert (
        "| `s0-6gb` | Qwen2.5-3B | 6 GiB | 11.900 → 9.500 | 11.800 → 9.600 | 412 s, 40 steps | "
        "5.00 GiB | 1.75 |" in text
    )
    assert "`s1-t4` failed: out of memory" in text and "- `s0-6gb`: A note." in text
    with pytest.raises(SystemExit, match="has no lines"):
        (tmp_path / "other.md").write_text("nothing\n")
        write_between_markers(tmp_path / "other.md", "x")
    assert BEGIN in PAGE.read_text(encoding="utf-8")


def test_an_interrupted_run_leaves_the_table_of_the_rows_that_finished(tmp_path, monkeypatch):
    page = tmp_path / "rows.md"
    done = []

    def run_or_stop(row, *_, **__):
        if done:
            raise KeyboardInterrupt
        done.append(row)
        return FIGURES

    monkeypatch.setattr(gpu_rows, "write_model", lambda *_, **__: None)
    monkeypatch.setattr(gpu_rows, "run_in_subprocess", run_or_stop)
    monkeypatch.setattr("sys.argv", ["gpu_rows", "--tiny", "--out", str(page)])
    with pytest.raises(KeyboardInterrupt):
        gpu_rows.main()
    text = page.read_text()
    assert f"| `{ROWS[0].recipe}` | tiny" in text and f"`{ROWS[1].recipe}`" not in text


@pytest.mark.slow
def test_all_rows_run_to_their_end_with_tiny_shapes(tmp_path):
    page = tmp_path / "rows.md"
    words = ["-m", "benchmarks.gpu_rows", "--tiny", "--out", str(page)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    for row in ROWS:
        losses = re.search(
            rf"`{row.recipe}` \| tiny \| {row.card_gib} GiB \| ([\d.]+) → ([\d.]+)", text
        )
        assert losses and all(5 < float(loss) < 15 for loss in losses.groups())
    assert "torch " in text and "failed" not in text
    if not torch.cuda.is_available():
        assert re.search("`s0-6gb`: optim is adamw_torch_fused instead of paged_adamw_32bit", text)
