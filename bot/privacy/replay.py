"""Everybody who was forgotten before is forgotten again in what a backup brought back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from bot.privacy import tombstones
from bot.privacy.files import HomeFiles
from bot.privacy.forget import Forgetter
from bot.privacy.gather import recognised, recognised_in
from bot.privacy.receipt import Receipt
from bot.privacy.traces import Finder, Traces
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
            traces = forgetter.traces(user_id, sure_names=sorted(names.values()))
            receipts.append(await forgetter.run(forgetter.begin(traces, until=at)))
    if ids or names:
        traces = Traces(ids=tuple(sorted(ids.values()))).surely_named(sorted(names.values()))
        receipts.append(await forgetter.run(forgetter.begin(traces, scope="files")))
    return receipts


def _all_files(forgetter: Forgetter) -> Iterator[Path]:
    return HomeFiles(forgetter.home, Finder(Traces()), ()).primary()
