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


async def replay_erasures(runner: ErasureRunner, *, files: bool) -> list[ErasureReceipt]:
    """Erase everybody with a tombstone again from the store, up to its date; with `files`, from the home's files, too.

    Messages of somebody who came back later stay: they have a later date. Files have no dates, so they are searched
    only after a restore, for the ids and names of everybody with a tombstone.
    """
    buried = consent_files.reconcile_tombstones(runner.home, runner.store)
    if not buried:
        return []
    erasure, receipts = runner.store.erasure, []
    ids: dict[str, str] = {}
    names: dict[str, str] = {}
    if files:
        key = HomeKey.of(runner.home).people()
        _, names = identify_in_texts(erasure.free_texts(), key, set(buried))
        ids, more = await asyncio.to_thread(identify_in_files, _primary_files(runner), key, set(buried))
        names |= more
    for user_id in sorted(erasure.user_ids()):
        at = buried.get(runner.keyed(str(user_id)))
        first = erasure.first_seen(user_id)
        if at is not None and (files or (first is not None and first <= at)):
            traces = runner.traces(user_id, sure_names=sorted(names.values()), until=at)
            receipts.append(await runner.run(runner.begin(traces, until=at)))
    if ids or names:
        traces = PersonIdentifiers(ids=tuple(sorted(ids.values()))).with_confirmed_names(sorted(names.values()))
        receipts.append(await runner.run(runner.begin(traces, scope="files")))
    return receipts


async def resume_erasures(home: Path, store: Store, keeping: PrivacyServices, personas: frozenset[str]) -> None:
    """Mirror consent, finish interrupted erasures and replay tombstones, before the bot starts.

    Raises `UnderstudyError`.
    """
    consents = ConsentMirror(home, store, keeping.permission)
    consents.mirror()
    runner = ErasureRunner(home, store, consents, time.time, None, personas, keeping.forget_in_sandbox)
    await runner.finish()
    await replay_erasures(runner, files=False)


def _primary_files(runner: ErasureRunner) -> Iterator[Path]:
    return HomeFiles(runner.home, IdentifierMatcher(PersonIdentifiers()), ()).primary_files()
