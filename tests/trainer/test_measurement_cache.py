"""What an evaluation has measured is used again, and only where everything is the same."""

import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from personas.prompt.renderer import TokenizedSample
from trainer.evaluate import measurement_cache
from trainer.evaluate.measurement_cache import (
    NO_CACHE,
    KnownLosses,
    MeasurementCache,
    StoredReply,
    model_key,
    reply_key,
)
from trainer.train.losses import TokenLosses

BASE = model_key("base", "", "bfloat16")
REPLY = StoredReply("Mind the rope, 錨.", 7, True)


@pytest.fixture
def cache(tmp_path):
    return MeasurementCache.at_home(tmp_path)


def sample(first, reply_tokens=2):
    return TokenizedSample((first, 2, 3), (False,) + (True,) * reply_tokens)


def losses(value, tokens=2):
    return TokenLosses(np.full(tokens, value), np.array([True] + [False] * (tokens - 1)))


def test_losses_and_replies_come_back_as_they_were(cache):
    cache.add_losses(BASE, [sample(1), sample(4)], [losses(0.1), losses(1 / 3)])
    known = cache.losses(BASE, [sample(4), sample(9), sample(1)])
    assert known.keys() == {0, 2}
    assert known[0].nll.tolist() == [1 / 3, 1 / 3] and known[0].likeliest.tolist() == [True, False]
    assert known[0].nll.dtype == np.float64 and known[0].likeliest.dtype == np.bool_
    key = reply_key(BASE, (1, 2), seed=0)
    cache.add_replies({key: REPLY})
    assert cache.replies([key, b"another"]) == {key: REPLY}


@pytest.mark.parametrize(
    "other",
    [("other base", "", "bfloat16"), ("base", "weights", "bfloat16"), ("base", "", "float32")],
)
def test_another_model_adapter_or_precision_knows_nothing(cache, other):
    cache.add_losses(BASE, [sample(1)], [losses(0.1)])
    assert not cache.losses(model_key(*other), [sample(1)])
    assert not cache.losses(BASE, [replace(sample(1), mask=(False, False, True))])
    cache.add_replies({reply_key(BASE, (1,), seed=0, temperature=0.7): REPLY})
    for changed in ({"seed": 1, "temperature": 0.7}, {"seed": 0, "temperature": 0.8}):
        assert not cache.replies([reply_key(BASE, (1,), **changed)])


def test_a_graphics_card_knows_nothing_of_what_another_device_measured(cache, monkeypatch):
    cache.add_losses(BASE, [sample(1)], [losses(0.1)])
    monkeypatch.setattr(measurement_cache.torch.cuda, "is_available", lambda: True)
    keys = set()
    for card in ("RTX 3060", "T4"):
        monkeypatch.setattr(measurement_cache.torch.cuda, "get_device_name", lambda card=card: card)
        keys.add(model_key("base", "", "bfloat16"))
    assert len(keys) == 2 and not any(cache.losses(key, [sample(1)]) for key in keys)


def test_a_damaged_entry_is_measured_again(cache):
    cache.add_losses(BASE, [sample(1), sample(4)], [losses(0.1), losses(0.2)])
    with sqlite3.connect(cache.file) as database:
        rows = database.execute("select key, value from measurements").fetchall()
        broken = bytearray(rows[0][1])
        broken[-1] ^= 1
        database.execute(
            "update measurements set value = ? where key = ?", (bytes(broken), rows[0][0])
        )
    assert len(cache.losses(BASE, [sample(1), sample(4)])) == 1


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + b"x" * 5000])
def test_a_damaged_file_is_dropped_and_made_anew(cache, content):
    cache.file.parent.mkdir()
    cache.file.write_bytes(content)
    assert not cache.losses(BASE, [sample(1)])
    cache.add_losses(BASE, [sample(1)], [losses(0.1)])
    assert cache.losses(BASE, [sample(1)])
    assert cache.file.stat().st_mode & 0o077 == 0


def test_a_cache_that_is_locked_or_cannot_be_written_costs_only_time(cache, monkeypatch):
    monkeypatch.setattr(measurement_cache, "BUSY_TIMEOUT_S", 0.01)
    cache.add_losses(BASE, [sample(1)], [losses(0.1)])
    other = sqlite3.connect(cache.file, isolation_level=None)
    other.execute("begin exclusive")
    cache.add_losses(BASE, [sample(4)], [losses(0.1)])
    assert not cache.losses(BASE, [sample(1)])
    other.execute("rollback")
    other.close()
    assert cache.losses(BASE, [sample(1), sample(4)]).keys() == {0}
    NO_CACHE.add_losses(BASE, [sample(1)], [losses(0.1)])
    assert not NO_CACHE.losses(BASE, [sample(1)])


def test_the_entries_used_last_are_kept(cache, monkeypatch):
    monkeypatch.setattr(measurement_cache, "MAX_ENTRIES", 2)
    now = iter(range(100))
    monkeypatch.setattr(measurement_cache.time, "time", lambda: float(next(now)))
    cache.add_losses(BASE, [sample(1)], [losses(0.1)])
    cache.add_losses(BASE, [sample(2)], [losses(0.1)])
    assert cache.losses(BASE, [sample(1)])
    cache.add_losses(BASE, [sample(3)], [losses(0.1)])
    assert cache.losses(BASE, [sample(1), sample(2), sample(3)]).keys() == {0, 2}


def test_only_unknown_losses_are_measured(cache):
    measured = []

    def measure(samples):
        measured.append(list(samples))
        return [losses(float(sample.ids[0])) for sample in samples]

    known = KnownLosses(cache, {"base": BASE})
    first = known.measure("base", [sample(1), sample(2)], measure)
    again = known.measure("base", [sample(2), sample(3), sample(1)], measure)
    assert measured == [[sample(1), sample(2)], [sample(3)]]
    assert [loss.nll[0] for loss in again] == [2, 3, 1] and first[0].nll[0] == 1
    known.measure("new", [sample(1)], measure)
    assert measured[-1] == [sample(1)], "a side without a key is always measured"
