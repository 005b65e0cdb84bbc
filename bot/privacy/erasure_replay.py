"""Replays past erasures on data that a backup restored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from bot.privacy import consent_files
from bot.privacy.alias_search import identify_in_files, identify_in_texts
from bot.privacy.consent_files import ConsentMirror
from bot.privacy.erasure_runner import ErasureReceipt, ErasureRunner
from bot.privacy.home_files import HomeFiles
from bot.privacy.identifiers import IdentifierMatcher, PersonIdentifiers
from bot.services import PrivacyServices
from bot.store import Store
from personas.home.pseudonyms import HomeKey


async def replay_erasures(forgetter: ErasureRunner, *, files: bool) -> list[ErasureReceipt]:
    """Forget again who has a tombstone and is in the store with what was before it; with `files`, in the home's files.

    What somebody said who came back afterwards stays: it bears a later date. Files bear none, so they are looked
    through only after a backup was restored, for the ids and names of all who have a tombstone.
    """
    buried = consent_files.reconcile_tombstones(forgetter.home, forgetter.store)
    if not buried:
        return []
    erasure, receipts = forgetter.store.erasure, []
    ids: dict[str, str] = {}
    names: dict[str, str] = {}
    if files:
        key = HomeKey.of(forgetter.home).people()
        _, names = identify_in_texts(erasure.free_texts(), key, set(buried))
        ids, more = await asyncio.to_thread(identify_in_files, _primary_files(forgetter), key, set(buried))
        names |= more
    for user_id in sorted(erasure.user_ids()):
        at = buried.get(forgetter.keyed(str(user_id)))
        first = erasure.first_seen(user_id)
        if at is not None and (files or (first is not None and first <= at)):
            traces = forgetter.traces(user_id, sure_names=sorted(names.values()), until=at)
            receipts.append(await forgetter.run(forgetter.begin(traces, until=at)))
    if ids or names:
        traces = PersonIdentifiers(ids=tuple(sorted(ids.values()))).with_confirmed_names(sorted(names.values()))
        receipts.append(await forgetter.run(forgetter.begin(traces, scope="files")))
    return receipts


async def resume_erasures(home: Path, store: Store, keeping: PrivacyServices, personas: frozenset[str]) -> None:
    """Before the bot starts: mirror what members have allowed, go on with forgettings that were cut off, forget again.

    Raises `UnderstudyError`.
    """
    consents = ConsentMirror(home, store, keeping.permission)
    consents.mirror()
    forgetter = ErasureRunner(home, store, consents, time.time, None, personas, keeping.forget_in_sandbox)
    await forgetter.finish()
    await replay_erasures(forgetter, files=False)


def _primary_files(forgetter: ErasureRunner) -> Iterator[Path]:
    return HomeFiles(forgetter.home, IdentifierMatcher(PersonIdentifiers()), ()).primary()
