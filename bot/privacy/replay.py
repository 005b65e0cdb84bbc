"""Everybody who was forgotten before is forgotten again in what a backup brought back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from bot.house import Keeping
from bot.privacy import tombstones
from bot.privacy.consent import Consents
from bot.privacy.files import HomeFiles
from bot.privacy.forget import Forgetter
from bot.privacy.gather import recognised, recognised_in
from bot.privacy.receipt import Receipt
from bot.privacy.traces import Finder, Traces
from bot.store import Store
from personas.keys import HomeKey


async def replay(forgetter: Forgetter, *, files: bool) -> list[Receipt]:
    """Forget again who has a tombstone and is in the store with what was before it; with `files`, in the home's files.

    What somebody said who came back afterwards stays: it bears a later date. Files bear none, so they are looked
    through only after a backup was restored, for the ids and names of all who have a tombstone.
    """
    buried = tombstones.reconcile(forgetter.home, forgetter.store)
    if not buried:
        return []
    erasure, receipts = forgetter.store.erasure, []
    ids: dict[str, str] = {}
    names: dict[str, str] = {}
    if files:
        key = HomeKey.of(forgetter.home).people()
        _, names = recognised_in(erasure.free_texts(), key, set(buried))
        ids, more = await asyncio.to_thread(recognised, _all_files(forgetter), key, set(buried))
        names |= more
    for user_id in sorted(erasure.user_ids()):
        at = buried.get(forgetter.keyed(str(user_id)))
        first = erasure.first_seen(user_id)
        if at is not None and (files or (first is not None and first <= at)):
            traces = forgetter.traces(user_id, sure_names=sorted(names.values()), until=at)
            receipts.append(await forgetter.run(forgetter.begin(traces, until=at)))
    if ids or names:
        traces = Traces(ids=tuple(sorted(ids.values()))).surely_named(sorted(names.values()))
        receipts.append(await forgetter.run(forgetter.begin(traces, scope="files")))
    return receipts


async def take_up(home: Path, store: Store, keeping: Keeping, personas: frozenset[str]) -> None:
    """Before the bot starts: mirror what members have allowed, go on with forgettings that were cut off, forget again.

    Raises `UnderstudyError`.
    """
    consents = Consents(home, store, keeping.permission)
    consents.mirror()
    forgetter = Forgetter(home, store, consents, time.time, None, personas, keeping.leave_sandbox)
    await forgetter.finish()
    await replay(forgetter, files=False)


def _all_files(forgetter: Forgetter) -> Iterator[Path]:
    return HomeFiles(forgetter.home, Finder(Traces()), ()).primary()
