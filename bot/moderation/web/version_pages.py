"""`/dashboard/servers/ID/personas/ID`: a persona's versions in a server: promotion, rollback and
rollouts.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from bot.chat.model_names import version_label
from bot.moderation.web.access import GuildAccess, MemberRoutes
from bot.moderation.web.lookup import (
    LIST_ADVICE,
    PERSONA,
    channel_choices,
    channel_name,
    chosen_channel,
    own_persona_in_path,
    persona_in_path,
    persona_path,
    require_version,
    speaking_version,
)
from bot.platform.localisation import gettext_lazy, join_texts
from bot.platform.messages import without_escapes
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import read_form
from bot.platform.web_kit.templating import redirect_to, render_page
from bot.schedules.web.ids import read_id
from bot.store import InstalledVersion, NewRollout, Rollout
from bot.training.actions import NO_CHANNEL_ID
from bot.versions.actions import PromotionObjectedError, PromotionObjections
from bot.versions.rollout.discord_channels import RolloutChannel, require_speaks_in
from bot.versions.rollout.report import RolloutComparison, compare_rollout, tally_text
from bot.versions.statistics.sequential_test import E_VALUE_THRESHOLD
from bot.versions.web.timeline import score_text
from personas.errors import RequestError, UnderstudyError
from personas.schemas.chat import Persona

SHARED_ADVICE = gettext_lazy(
    "It belongs to the operator. On Discord, `/finetune promote` and `/finetune rollback` choose its "
    "version for your server."
)
ALL_REPLIES = 100
routes = MemberRoutes()


@dataclass(frozen=True)
class ListedRollout:
    """A rollout of a server: the version before it, the channel in which alone it answers (empty: all),
    and how members take it.
    """

    rollout: Rollout
    before: str
    where: str
    new_tally: str
    old_tally: str
    comparison: RolloutComparison


@routes.add(f"GET {PERSONA}")
async def get_versions_page(access: GuildAccess, request: web.Request) -> web.Response:
    """Page of a persona's versions that the server may use, with what was measured."""
    access.require("train", "promote")
    return _render_versions(access, request, persona_in_path(access, request))


@routes.add(f"POST {PERSONA}/promote")
async def post_promotion(access: GuildAccess, request: web.Request) -> web.Response:
    """Make a version live in the server; one that is objected to, with `anyway` alone."""
    persona = _changeable_persona(access, request)
    form = await read_form(request)
    version = form.get("version", "")
    versions = access.services.versions
    try:
        result = await versions.promote(
            persona.id, version, access.origin, anyway=form.get("anyway") == "yes"
        )
    except PromotionObjectedError as error:
        return _render_versions(
            access, request, persona, objected=(version, error.objections), status=409
        )
    except UnderstudyError as error:
        problem = Problem("conflict", without_escapes(error.message), error.advice)
        return _render_versions(access, request, persona, problem=problem)
    message = gettext_lazy(
        "{version} of {name} is live from the next reply on.",
        version=result.version,
        name=persona.name,
    )
    if not result.is_new:
        message = gettext_lazy(
            "{version} of {name} is live already.", version=result.version, name=persona.name
        )
    return redirect_to(request, persona_path(access, persona), message)


@routes.add(f"POST {PERSONA}/rollback")
async def post_rollback(access: GuildAccess, request: web.Request) -> web.Response:
    """Make the version before live again in the server."""
    persona = _changeable_persona(access, request)
    try:
        result = access.services.versions.roll_back(persona, access.origin)
    except UnderstudyError as error:
        problem = Problem("conflict", without_escapes(error.message), error.advice)
        return _render_versions(access, request, persona, problem=problem)
    message = gettext_lazy(
        "{version} answers for {name} from the next reply on.",
        version=version_label(result.speaking),
        name=persona.name,
    )
    return redirect_to(request, persona_path(access, persona), join_texts(message, *result.notes))


@routes.add(f"POST {PERSONA}/rollout")
async def post_rollout(access: GuildAccess, request: web.Request) -> web.Response:
    """Let a version answer a share of the replies, or those of a channel."""
    persona = _changeable_persona(access, request)
    form = await read_form(request)
    try:
        new = _new_rollout(access, persona, form)
        await access.services.versions.start_rollout(new)
    except UnderstudyError as error:
        problem = Problem("conflict", without_escapes(error.message), error.advice)
        return _render_versions(access, request, persona, problem=problem)
    message = gettext_lazy(
        "{version} of {name} is tried from the next reply on.",
        version=new.version,
        name=persona.name,
    )
    return redirect_to(request, persona_path(access, persona), message)


@routes.add(f"POST {PERSONA}/rollout/stop")
async def post_rollout_stop(access: GuildAccess, request: web.Request) -> web.Response:
    """Let the live version make all replies again."""
    persona = _changeable_persona(access, request)
    seq = read_id((await read_form(request)).get("rollout", ""), LIST_ADVICE)
    rollout = access.services.store.rollouts.get(seq)
    try:
        if (
            rollout is None
            or rollout.guild_id != access.guild_id
            or rollout.persona_id != persona.id
            or rollout.is_promoted
        ):
            raise RequestError(
                gettext_lazy("There is no such rollout here."),
                gettext_lazy("The page lists what is tried."),
            )
        access.services.versions.stop_rollout(rollout, access.member.id)
    except UnderstudyError as error:
        problem = Problem("conflict", without_escapes(error.message), error.advice)
        return _render_versions(access, request, persona, problem=problem)
    message = gettext_lazy(
        "{version} of {name} is tried no longer.", version=rollout.version, name=persona.name
    )
    return redirect_to(request, persona_path(access, persona), message)


def _new_rollout(access: GuildAccess, persona: Persona, form: Mapping[str, str]) -> NewRollout:
    """Build the rollout that `/finetune rollout start` builds of the same options. Raises
    `UnderstudyError`.
    """
    version = require_version(access, persona, form.get("version", "")).version
    share = _share(form.get("share", "").strip())
    only = chosen_channel(access, form.get("only", ""))
    reports = chosen_channel(access, form.get("channel", ""))
    if share is None and only is None:
        raise RequestError(
            gettext_lazy("Neither a share nor a channel is given."),
            gettext_lazy("Name a share of the replies, such as 20, or a channel, or both."),
        )
    if only is not None:
        if not isinstance(only, RolloutChannel):
            raise RequestError(
                gettext_lazy("A thread belongs to its channel."),
                gettext_lazy("Choose the channel."),
            )
        require_speaks_in(access.services, persona, only)
    return NewRollout(
        persona_id=persona.id,
        version=version,
        guild_id=access.guild_id,
        channel_id=reports.id if reports else NO_CHANNEL_ID,
        started_by=access.member.id,
        share=share or ALL_REPLIES,
        only_channel=only.id if only else None,
    )


def _share(text: str) -> int | None:
    """Return the percentage in a form's field; None for none. Raises `RequestError`."""
    if not text:
        return None
    if text.isascii() and text.isdecimal() and len(text) < 3 and int(text):
        return int(text)
    raise RequestError(
        gettext_lazy("A share is a whole number from 1 to 99."),
        gettext_lazy("20 is a fifth of the replies."),
    )


def _rollouts(access: GuildAccess, persona: Persona) -> list[ListedRollout]:
    """List what is tried in the server, and the promoted version while it is observed."""
    store = access.services.store
    listed = []
    for rollout in store.rollouts.running(persona.id, time.time()):
        if rollout.guild_id != access.guild_id:
            continue
        comparison = compare_rollout(store, rollout)
        listed.append(
            ListedRollout(
                rollout,
                before=version_label(rollout.before),
                where=channel_name(access, rollout.only_channel) if rollout.only_channel else "",
                new_tally=tally_text(comparison.new),
                old_tally=tally_text(comparison.before),
                comparison=comparison,
            )
        )
    return listed


def _changeable_persona(access: GuildAccess, request: web.Request) -> Persona:
    """Return the persona of the address, whose versions the member may change. Raises `Problem`."""
    access.require("promote")
    return own_persona_in_path(access, request, SHARED_ADVICE)


def _render_versions(
    access: GuildAccess,
    request: web.Request,
    persona: Persona,
    *,
    objected: tuple[str, PromotionObjections] | None = None,
    problem: Problem | None = None,
    status: int = 200,
) -> web.Response:
    installed: list[InstalledVersion] = access.services.store.versions.installed(
        persona.id, access.guild_id
    )
    is_own = access.owns(persona)
    may_promote = access.allows("promote")
    return render_page(
        request,
        "servers/versions.html",
        title=gettext_lazy("{name} in {server}", name=persona.name, server=access.guild.name),
        status=status,
        problem=problem,
        access=access,
        persona=persona,
        path=persona_path(access, persona),
        is_own=is_own,
        may_promote=may_promote,
        may_change=is_own and may_promote,
        rollouts=_rollouts(access, persona) if may_promote else [],
        threshold=E_VALUE_THRESHOLD,
        channels=channel_choices(access),
        shared_advice=SHARED_ADVICE,
        live=version_label(speaking_version(access, persona)),
        versions=list(reversed(installed)),
        score_text=score_text,
        objected=objected,
    )
