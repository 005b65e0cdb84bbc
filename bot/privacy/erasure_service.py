"""Runs erasure requests in the background of the running bot, one at a time, and retrains what they
withdrew.
"""

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import discord
from pydantic import Field, ValidationError

from bot.chat.model_names import version_label
from bot.chat.places import GuildChannel
from bot.personas.guild_lore import GuildLore, remove_stale_contributions
from bot.platform.clock import BackgroundTask
from bot.platform.localisation import language_of, override
from bot.platform.messages import NO_MENTIONS
from bot.privacy import consent_files
from bot.privacy.alias_search import identify_in_files, identify_in_texts
from bot.privacy.consent_files import ConsentMirror
from bot.privacy.erasure_receipt import ErasureReceipt, ErasureScope, WithdrawnVersion
from bot.privacy.erasure_runner import ErasureRunner, redact_people_being_erased
from bot.privacy.home_files import HomeFiles
from bot.privacy.identifier_matcher import IdentifierMatcher
from bot.privacy.identifiers import PersonIdentifiers
from bot.privacy.texts import translate
from bot.services import Bot, PrivacyServices
from bot.store import ALL_GUILDS, Store, TrainingJob
from personas.errors import UnderstudyError
from personas.home.atomic_files import write_model
from personas.home.data_subjects import mark_erasure
from personas.home.pseudonyms import HomeKey, keyed_person
from personas.lore.semantic import clear_vectors
from personas.schemas.base import FrozenModel

log = logging.getLogger(__name__)
SYSTEM_USER_ID = 0  # the requester of a training run that follows from an erasure
REQUESTS_FOLDER = "forget"  # folder of the home in which the operator's requests are placed
POLL_INTERVAL_S = 2.0
ReceiptCallback = Callable[[ErasureReceipt], Awaitable[None]]


@dataclass(frozen=True)
class LiveBotHooks:
    """Connects an erasure with the running bot (`bot.privacy.erasure_runner.BotHooks`)."""

    client: Bot

    @property
    def busy(self) -> Collection[Path]:
        """The lore index, which is open and rebuilt later."""
        return list((self.client.services.home / "cache").glob("lore.sqlite*"))

    async def interrupt_jobs(self, jobs: Collection[str]) -> None:
        queue = self.client.services.queue
        queue.hold()
        for job_id in jobs:
            await queue.interrupt(job_id)

    async def replies_ended(self) -> None:
        await self.client.services.reply_service.unfinished.wait_for_all()

    async def unload_version(self, persona_id: str, version: str) -> None:
        services = self.client.services
        services.reply_service.stop_replies(persona_id=persona_id)
        await services.engine.drop(services.served_versions.adapter(persona_id, version))

    async def files_changed(self, paths: Collection[str]) -> None:
        services = self.client.services
        has_cards = False
        owners: set[tuple[int, str]] = set()
        for path in paths:
            match Path(path).parts:
                case ("personas", *_):
                    has_cards = True
                case ("lore", guild, persona_id, _, *_) if guild.isdigit():
                    owners.add((int(guild), persona_id))
        if has_cards:
            await asyncio.to_thread(services.personas.reload_guild_cards)
        lore = GuildLore(services.home, services.lore, services.catalogue.shipped.lore)
        for guild_id, persona_id in sorted(owners):
            await lore.refresh(guild_id, persona_id)
        await asyncio.to_thread(services.lore.compact)

    async def follow(self, receipt: ErasureReceipt) -> ErasureReceipt:
        await _clear_caches(self.client)
        try:
            withdrawn = tuple([self._retrain(version) for version in receipt.withdrawn])
            dialogues = tuple([self._retrain_dialogue(dialogue) for dialogue in receipt.dialogues])
        finally:
            self.client.services.queue.go_on()
        for version in withdrawn:
            await self._announce(version)
        return receipt.model_copy(update={"withdrawn": withdrawn, "dialogues": dialogues})

    def _retrain(self, withdrawn: WithdrawnVersion) -> WithdrawnVersion:
        """Queue a withdrawn version's job again where it was live; others are retrained on
        request.
        """
        store = self.client.services.store
        job_id = store.versions.job_of(withdrawn.persona_id, withdrawn.version)
        job = store.jobs.get(job_id) if job_id else None
        if job is None or job.result is None or withdrawn.now is None:
            return withdrawn
        if job.result.imported:  # the adapter was trained elsewhere
            return withdrawn
        return self._enqueue_again(withdrawn, job)

    def _retrain_dialogue(self, withdrawn: WithdrawnVersion) -> WithdrawnVersion:
        for job in reversed(self.client.services.store.jobs.in_state("done")):
            if job.name == f"dialogue/{withdrawn.persona_id}":
                return self._enqueue_again(withdrawn, job)
        return withdrawn

    def _enqueue_again(self, withdrawn: WithdrawnVersion, job: TrainingJob) -> WithdrawnVersion:
        # The same id each time: the step may be repeated.
        again_id = hashlib.sha256(f"again:{job.job_id}".encode()).hexdigest()[:10]
        if self.client.services.store.jobs.get(again_id):
            return withdrawn.model_copy(update={"again": again_id})
        try:
            self.client.services.queue.enqueue(
                self.client.services.trainings.repeated(job.request),
                guild_id=job.guild_id,
                channel_id=job.channel_id,
                requested_by=SYSTEM_USER_ID,
                job_id=again_id,
            )
        except UnderstudyError as error:
            log.warning(
                "%s %s is not retrained: %s", withdrawn.persona_id, withdrawn.version, error
            )
            return withdrawn.model_copy(update={"why_not": error.message})
        return withdrawn.model_copy(update={"again": again_id})

    async def _announce(self, withdrawn: WithdrawnVersion) -> None:
        """Announce a withdrawal in the channels concerned, without naming the person."""
        services = self.client.services
        versions = services.store.versions
        persona_id = withdrawn.persona_id
        was_live = versions.live_until_withdrawn(persona_id, withdrawn.version)
        own = versions.live_by_guild(persona_id)
        for guild in self.client.guilds:
            persona = services.personas.get(persona_id, guild.id)
            is_concerned = guild.id in was_live or (ALL_GUILDS in was_live and guild.id not in own)
            if persona is None or not is_concerned:
                continue
            now = version_label(versions.live(persona_id, guild.id))
            outlook = "announced_again" if withdrawn.again else "announced_alone"
            with override(language_of(guild.preferred_locale)):
                announcement = translate(
                    "announced", name=persona.name, version=withdrawn.version, now=now
                )
                text = f"{announcement} {translate(outlook)}"
            for channel in self._channels(guild, persona_id):
                try:
                    await channel.send(text, allowed_mentions=NO_MENTIONS)
                except discord.HTTPException as error:
                    log.warning(
                        "could not announce in #%s that a version was withdrawn: %s", channel, error
                    )
            services.versions.notify(guild.id, persona_id)

    def _channels(self, guild: discord.Guild, persona_id: str) -> Iterator[discord.abc.Messageable]:
        for setting in self.client.services.store.channels.of_guild(guild.id):
            channel = guild.get_channel_or_thread(setting.channel_id)
            if setting.persona_id == persona_id and isinstance(channel, GuildChannel):
                yield channel


class OperatorErasureRequest(FrozenModel):
    """An erasure request by the operator: an id, and names of the person."""

    user_id: Annotated[int, Field(ge=0)]
    names: tuple[str, ...] = ()


class ErasureService:
    """Queues members' erasure requests for the cog, and runs them."""

    def __init__(self, bot: Bot) -> None:
        self._bot = bot
        self._callbacks: dict[int, ReceiptCallback] = {}
        self._wake = asyncio.Event()
        self._worker = BackgroundTask("erasure", self._work, self._until_asked)

    @property
    def runner(self) -> ErasureRunner:
        """Build the runner for this home, connected to the bot."""
        services = self._bot.services
        return ErasureRunner(
            services.home,
            services.store,
            ConsentMirror(services.home, services.store, services.privacy.permission),
            time.time,
            hooks=LiveBotHooks(self._bot),
            personas=services.personas.all_names(),
            forget_in_sandbox=services.privacy.forget_in_sandbox,
        )

    def start(self) -> None:
        services = self._bot.services
        services.reply_service.redacted = partial(redact_people_being_erased, services.store)
        services.background.append(self._worker)
        self._worker.start()

    async def stop(self) -> None:
        """Stop; what is unfinished continues at the next start."""
        await self._worker.stop()

    def is_underway(self, user_id: int) -> bool:
        runner = self.runner
        person = runner.keyed(str(user_id))
        for row in runner.store.erasure_requests.unfinished():
            if row.person == person and row.step != "follow":
                return True
        return False

    def ask(
        self,
        user_id: int,
        names: Iterable[str],
        scope: ErasureScope,
        event_id: int,
        tell: ReceiptCallback,
    ) -> None:
        """Store a request, to be carried out, and `tell` at its end unless restarted. Raises
        `UnderstudyError`.
        """
        runner = self.runner
        last_event = event_id if scope == "everything" else 0
        row = runner.begin(runner.traces(user_id, names), scope=scope, last_event=last_event)
        self._callbacks[row.seq] = tell
        self._stop_serving(user_id)

    def _stop_serving(self, user_id: int) -> None:
        services = self._bot.services
        services.reply_service.stop_replies(member_id=user_id)
        services.dialogue_runner.stop_requested_by(user_id)
        for channel_id, message in list(services.unanswered.items()):
            if message.author_id == user_id:
                del services.unanswered[channel_id]
        self._wake.set()

    async def _work(self) -> None:
        await self._bot.wait_until_ready()
        self._wake.clear()
        self._take_requests()
        await self._run_unfinished()

    async def _until_asked(self) -> None:
        # Not wait_for, which before Python 3.12 loses a cancellation that comes together with the
        # event.
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_INTERVAL_S):
                await self._wake.wait()

    async def _run_unfinished(self) -> None:
        """Run the requests, and report the ends of those that members made."""
        for row in self._bot.services.store.erasure_requests.unfinished():
            receipt = await self.runner.run(row)
            if tell := self._callbacks.pop(row.seq, None):
                await tell(receipt)

    def _take_requests(self) -> None:
        """Begin the requests that `leave_request` has left."""
        for file in sorted((self._bot.services.home / REQUESTS_FOLDER).glob("*.json")):
            try:
                request = OperatorErasureRequest.model_validate_json(file.read_bytes())
            except ValidationError:
                log.error("%s is no erasure request", file.name)
            else:
                runner = self.runner
                traces = runner.traces(request.user_id, sure_names=request.names)
                now = discord.utils.time_snowflake(discord.utils.utcnow())
                runner.begin(traces, last_event=now)
                self._stop_serving(request.user_id)
            file.unlink()


async def _clear_caches(bot: Bot) -> None:
    """Drop the prompts and messages that are kept in memory to save time."""
    clear_vectors()
    bot.services.reply_service.words.forget()
    await bot.services.engine.clear_prefix_cache()


def leave_request(home: Path, request: OperatorErasureRequest) -> Path:
    """Leave a request for the bot that runs on this home; it deletes the file on acceptance. Raises
    `OSError`.
    """
    folder = home / REQUESTS_FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / f"{secrets.token_hex(8)}.json"
    write_model(file, request)
    return file


async def replay_erasures(runner: ErasureRunner, *, files: bool) -> list[ErasureReceipt]:
    """Erase everybody with a tombstone again from the store, up to its date; with `files`, from the
    home's files, too.

    Messages of somebody who came back later stay: they have a later date. Files have no dates, so
    they are searched only after a restore, for the ids and names of everybody with a tombstone.
    """
    buried = consent_files.reconcile_tombstones(runner.home, runner.store)
    if not buried:
        return []
    erasure = runner.store.erasure
    receipts = []
    ids: dict[str, str] = {}
    names: dict[str, str] = {}
    key = HomeKey.of(runner.home).people()
    if files:
        _, names = identify_in_texts(erasure.free_texts(), key, set(buried))
        primary_files = HomeFiles(
            runner.home, IdentifierMatcher(PersonIdentifiers()), ()
        ).primary_files()
        ids, more = await asyncio.to_thread(identify_in_files, primary_files, key, set(buried))
        names |= more
    for user_id in sorted(erasure.user_ids()):
        at = buried.get(keyed_person(key, str(user_id)))
        first = erasure.first_seen(user_id)
        if at is not None and (files or (first is not None and first <= at)):
            traces = runner.traces(user_id, sure_names=sorted(names.values()), until=at)
            receipts.append(await runner.run(runner.begin(traces, until=at)))
    if ids or names:
        traces = PersonIdentifiers(ids=tuple(sorted(ids.values()))).with_confirmed_names(
            sorted(names.values())
        )
        receipts.append(await runner.run(runner.begin(traces, scope="files")))
    return receipts


async def resume_erasures(
    home: Path, store: Store, privacy: PrivacyServices, personas: frozenset[str]
) -> None:
    """Mirror consent, finish interrupted erasures, replay tombstones before the start. Raises
    `UnderstudyError`.
    """
    consents = ConsentMirror(home, store, privacy.permission)
    runner = ErasureRunner(
        home,
        store,
        consents,
        time.time,
        personas=personas,
        forget_in_sandbox=privacy.forget_in_sandbox,
    )
    consents.mirror()
    await runner.finish()
    await replay_erasures(runner, files=False)
    mark_erasure(home, running=False)
    # Last, because an erasure renames files.
    remove_stale_contributions(store.people, home)
