"""Progress where nobody sees a bar: now and then a plain line."""

from personas import cli_common
from trainer.cli.progress_view import ProgressCounter


def test_long_work_says_now_and_then_how_far_it_is(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(cli_common.time, "monotonic", lambda: now[0])
    with ProgressCounter() as counting:
        for _ in range(30):
            now[0] += 1
            counting.count("reading talk.json", 1000)
        counting.count("making samples", 1)
    assert capsys.readouterr().err.splitlines() == [
        f"reading talk.json: {n},000 rows" for n in (10, 20, 30)
    ]


def test_work_that_is_done_soon_says_nothing(capsys):
    with ProgressCounter() as counting:
        counting.count("reading talk.json", 1000)
    assert not capsys.readouterr().err
