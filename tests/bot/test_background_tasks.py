"""Background tasks survive errors, log each once, try again after growing pauses, and show how they
fare.
"""

import asyncio

import pytest

from bot.platform.clock import MAX_RETRY_DELAY_S, RETRY_DELAY_S, BackgroundTask
from bot.platform.db.database import TRIM_STEP_PAGES
from bot.store import Store, StoreError
from tests.fakes import FakeClock, until


class Work:
    """Fails with the errors that are left, then succeeds; `go` lets it work again."""

    def __init__(self, *errors):
        self.errors, self.done, self.go = list(errors), 0, asyncio.Event()

    async def __call__(self):
        self.go.clear()
        if self.errors:
            raise self.errors.pop(0)
        self.done += 1


async def test_an_error_is_logged_once_and_the_work_tried_again_after_growing_pauses(caplog):
    clock = FakeClock()
    full = StoreError("The disk is full.")
    work = Work(*[full] * 7, KeyError("x"))
    task = BackgroundTask("retention", work, work.go.wait, clock)
    task.start()
    pauses = []
    while not work.done:
        await until(lambda: clock.sleepers or work.done)
        before = len(work.errors)
        pauses.append(0)
        while clock.sleepers and len(work.errors) == before and not work.done:
            clock.advance(10)
            pauses[-1] += 10
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    assert pauses[:4] == [RETRY_DELAY_S, 2 * RETRY_DELAY_S, 4 * RETRY_DELAY_S, 8 * RETRY_DELAY_S]
    assert max(pauses) == MAX_RETRY_DELAY_S and task.error == ""
    assert (
        caplog.text.count("The disk is full.") == 1 and caplog.text.count("Traceback") == 1
    )  # of the KeyError
    assert "retention: works again" in caplog.text
    work.go.set()
    await until(lambda: work.done == 2)
    work.errors.append(full)
    work.go.set()
    await until(lambda: task.error == "The disk is full.")
    await task.stop()
    await task.stop()
    assert not task.is_running


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "understudy.sqlite") as opened:
        yield opened


def fill(store, count):
    columns = "guild_id, channel_id, author_id, author_name, ordinal, text, at"
    row = f"insert into messages ({columns}) values (1, 1, 1, 'a', ?, ?, ?)"
    with store.atomic():
        store._connection._raw.executemany(
            row, ((number, "word " * 40, float(number)) for number in range(count))
        )


def test_a_file_that_is_mostly_empty_shrinks_in_steps(store, tmp_path):
    fill(store, 16_000)
    store.truncate_wal()
    before = (tmp_path / "understudy.sqlite").stat().st_size
    deleted = []
    while count := store.messages.delete_before(15_900.0, 500):
        deleted.append(count)
    assert max(deleted) == 500 and sum(deleted) == 15_900
    steps = 0
    while store.trim():
        steps += 1
    after = (tmp_path / "understudy.sqlite").stat().st_size
    assert steps >= (before - after) // (TRIM_STEP_PAGES * 4096) >= 1 and after < before / 4
