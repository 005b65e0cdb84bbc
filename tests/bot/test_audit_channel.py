"""The audit channel says who changed what, mentions nobody, and never hinders a change."""

import pytest

from bot.audit import actions
from bot.guild_settings.definitions import AUDIT_CHANNEL, GENERATION
from bot.guild_settings.store import SettingScope
from bot.lessons.actions import Teacher, teach
from bot.moderation.limits import read_limits
from bot.personas.creation import PersonaForm
from bot.personas.web.card_editing import replace_card_table
from bot.personas.web.lookup import OwnedPersona
from bot.personas.web.lore_files import choose_set, remove_lore_file, write_lore_file
from bot.personas.web.new_persona import create_owned
from bot.personas.web.pages import _import
from bot.platform.request_origin import OPERATOR_ORIGIN, RequestOrigin
from bot.platform.web_kit.request_body import FileForm
from personas.schemas.training import TrainingRequest
from sandbox.guild_seed import DEFAULT_BOT_PERMISSIONS, Permission
from sandbox.object_store import StoredFile
from sandbox.sandbox_errors import SandboxRefusal
from tests.bot.conftest import INN, OFFICE, QUAY, STAGE, on_stage
from tests.bot.version_rows import install, install_learned
from tests.fakes import until


async def moderated(stage, command, where=QUAY, /, **options):
    answer = await stage.moderator.slash(where, command, **options)
    await until(lambda: answer.text)
    return answer.text


async def audited(stage, channel=OFFICE):
    said = await moderated(stage, "moderation audit", channel=stage.sandbox.channel(channel)["id"])
    assert "lists changes from now on" in said
    await listed(stage, "made this the audit channel", channel)


def lines(stage, channel=OFFICE):
    return [one["content"] for one in stage.sandbox.messages(channel)]


async def listed(stage, words, channel=OFFICE):
    await until(lambda: any(words in line for line in lines(stage, channel)))
    return next(line for line in lines(stage, channel) if words in line)


async def test_each_change_is_one_line_with_who_and_what(stage):
    await audited(stage)
    before = len(lines(stage))
    member = stage.member.id
    await moderated(stage, "persona set", INN, persona="oda", second="thrip")
    await moderated(stage, "persona clear", INN)
    await moderated(stage, "persona mute", persona="ballast")
    await moderated(stage, "persona unmute", persona="ballast")
    await moderated(stage, "moderation block", member=member)
    await moderated(stage, "moderation unblock", member=member)
    await moderated(stage, "moderation limits", per_day=9)
    await moderated(stage, "moderation limits")
    await moderated(stage, "moderation minors", here=True)
    await moderated(stage, "moderation age", persona="thrip", restricted=True)
    await moderated(stage, "finetune promotion", way="automatic")
    await listed(stage, "go live at once")
    inn, quay = (stage.sandbox.channel(name)["id"] for name in (INN, QUAY))
    by = f"<@{stage.moderator.id}>"
    assert lines(stage)[before:] == [
        f"{by} set **Oda Marrow**, **Sir Aurelio Thrip** in <#{inn}>, where all messages are answered.",
        f"{by} removed the persona of <#{inn}>.",
        f"{by} muted Ballast in <#{quay}>.",
        f"{by} unmuted Ballast in <#{quay}>.",
        f"{by} blocked <@{member}> for all personas.",
        f"{by} lifted the block of <@{member}> for all personas.",
        f"{by} changed the replies (Replies to a member each day: 9) of this server.",
        f"{by} said that minors are here.",
        f"{by} marked **Sir Aurelio Thrip** as age-restricted.",
        f"{by} made new versions that the gate would promote go live at once.",
    ]
    assert not any(one["mentions"] for one in stage.sandbox.messages(OFFICE)), "nobody is pinged"


async def test_names_lore_and_how_replies_are_generated_are_listed_without_what_was_written(stage):
    await audited(stage)
    before = len(lines(stage))
    await moderated(stage, "persona alias", persona="oda")
    await moderated(stage, "persona alias", persona="oda", names="Mother Marrow")
    tides = StoredFile.named("tides.md", b"# Tides\n\nThe tide waits for the ferry.\n")
    await moderated(stage, "persona lore add", persona="oda", file=tides)
    await moderated(stage, "persona lore remove", persona="oda", file="tides.md")
    await moderated(stage, "persona lore sets")
    use = {"set": "Skerrow Harbour", "use": False}
    await moderated(stage, "persona lore sets", persona="oda", **use)
    await moderated(stage, "persona lore sets", **use)
    await moderated(stage, "persona generation set", temperature=0.5, max_new_tokens=90)
    await moderated(stage, "persona generation reset", setting="temperature")
    await moderated(stage, "persona generation set", where="persona", persona="oda", top_p=0.9)
    await moderated(stage, "persona generation reset", where="persona", persona="oda")
    await listed(stage, "reset what was set")
    by = f"<@{stage.moderator.id}>"
    here = f"<#{stage.sandbox.channel(QUAY)['id']}>"
    said = lines(stage)[before:]
    assert said == [
        f"{by} changed the further names of **Oda Marrow**.",
        f"{by} changed the lore of **Oda Marrow** (`tides.md`).",
        f"{by} removed `tides.md` from the lore of **Oda Marrow**.",
        f"{by} let **Oda Marrow** no longer use the lore **Skerrow Harbour**.",
        f"{by} let all personas of this server no longer use the lore **Skerrow Harbour**.",
        f"{by} changed the replies (Longest reply: 90 tokens, Temperature: 0.5) in {here}.",
        f"{by} changed the replies (Temperature: not set) in {here}.",
        f"{by} changed the replies (Top-p: 0.9) of **Oda Marrow**.",
        f"{by} reset what was set for the replies of **Oda Marrow**.",
    ]
    assert not any("Mother Marrow" in line or "ferry" in line for line in said)


async def test_what_personas_are_told_and_taught_is_listed_without_the_words(stage):
    await audited(stage)
    before = len(lines(stage))
    await moderated(stage, "persona timezone")
    await moderated(stage, "persona timezone", zone="Asia/Tokyo")
    await moderated(stage, "persona topic")
    await moderated(stage, "persona topic", told=True)
    await moderated(stage, "persona topic", told=False)
    await moderated(stage, "persona candidates")
    await moderated(stage, "persona candidates", count=3)
    await moderated(stage, "persona candidates", count=0)
    for user_id in (stage.member.id, stage.moderator.id):
        teacher = Teacher(int(stage.sandbox.guild_id), int(user_id), is_moderator=True)
        number = teach(
            stage.store, teacher, "ballast", prompt="and?", reply="No ferry.", instead_of=""
        )
        await moderated(stage, "persona unteach", number=number)
    await moderated(stage, "persona topic", told=True)
    by = f"<@{stage.moderator.id}>"
    here = f"<#{stage.sandbox.channel(QUAY)['id']}>"
    wanted = [
        f"{by} set the time zone of this server to Asia/Tokyo.",
        f"{by} let personas be told the topic of {here}.",
        f"{by} let personas no longer be told the topic of {here}.",
        f"{by} set the candidates for the beginning of a reply: 3.",
        f"{by} set the candidates for the beginning of a reply: the operator's number.",
        f"{by} took back what a member had taught **Ballast** (number 1).",
        f"{by} let personas be told the topic of {here}.",
    ]
    await until(lambda: len(lines(stage)) == before + len(wanted))
    assert lines(stage)[before:] == wanted


async def test_the_operators_changes_of_personas_lore_and_replies_are_listed(stage):
    await audited(stage)
    services = stage.client.services
    oda = OwnedPersona(services, 0, services.personas.get("oda", 0))
    tides = b"# Tides\n\nThe tide waits for the ferry.\n"
    await write_lore_file(oda, 0, "tides.md", content=tides, replace=True)
    await remove_lore_file(oda, 0, "tides.md")
    choose_set(oda, "_world", True, int(stage.sandbox.guild_id))
    services.guild_settings.change(GENERATION, SettingScope(0, persona_id="oda"), {"top_p": 0.9})
    await listed(stage, "Top-p")
    assert lines(stage)[-4:] == [
        "The operator changed the lore of **Oda Marrow** (`tides.md`).",
        "The operator removed `tides.md` from the lore of **Oda Marrow**.",
        "The operator let **Oda Marrow** use the lore **Skerrow Harbour**.",
        "The operator changed the replies (Top-p: 0.9) of **Oda Marrow**.",
    ]
    guild = int(stage.sandbox.guild_id)
    form = PersonaForm(name="Marlow", description="Marlow is a retired lighthouse keeper.")
    owned, _ = await create_owned(services, form, guild=str(guild), channel="")
    await replace_card_table(owned, services.personas.table(owned.id) | {"tagline": "Clocks."})
    file = FileForm(name="oda.toml", content=b'id = "ada"\nname = "Ada"\ndescription = "Ada."\n')
    await _import(services, guild, file)
    await listed(stage, "Ada")
    assert lines(stage)[-3:] == [
        "The operator created the persona **Marlow**.",
        "The operator edited the card of **Marlow**.",
        "The operator imported **Ada**.",
    ]


async def test_trainings_and_versions_are_listed_also_the_operators_and_the_bots(stage):
    await audited(stage)
    by = f"<@{stage.moderator.id}>"
    await moderated(stage, "finetune start", persona="oda")
    started = await listed(stage, "started the training")
    job = stage.store.jobs.in_state("queued") + stage.store.jobs.in_state("running")
    assert started == f"{by} started the training of **oda** (`{job[0].job_id}`)."
    await moderated(stage, "finetune cancel")
    assert (
        await listed(stage, "stopped")
        == f"{by} stopped the training of **oda** (`{job[0].job_id}`)."
    )

    guild = int(stage.sandbox.guild_id)
    request = TrainingRequest(job_name="weekly", persona="oda")
    moderator = int(stage.moderator.id)
    stage.client.services.trainings.start(
        request, guild_id=guild, requested_by=moderator, job_id="job-1", is_scheduled=True
    )
    line = await listed(stage, "(`job-1`)")
    assert line == "The bot started the scheduled training of **oda** (`job-1`)."
    first, second = (install(stage.store, "oda", guild=guild) for _ in range(2))
    versions = stage.client.services.versions
    origin = RequestOrigin(guild, 0, moderator)
    for version in (first, second):
        await versions.promote("oda", version, origin, anyway=True)
    oda = stage.client.services.personas.get("oda", guild)
    versions.roll_back(oda, origin)
    await versions.promote("oda", install(stage.store, "oda"), OPERATOR_ORIGIN, anyway=True)
    last = await listed(stage, "The operator")
    learned = install_learned(stage.store, stage.client.services.home, short_card=True)
    stage.store.versions.promote("ballast", learned, guild, 1.0)
    versions.choose_card("ballast", learned, "short")
    chosen = await listed(stage, "short card")
    assert chosen == f"The operator had {learned} of **Ballast** speak with its short card."
    assert last.startswith("The operator made v") and last.endswith(" of **Oda Marrow** live.")
    assert lines(stage)[-5:-2] == [
        f"{by} made {first} of **Oda Marrow** live.",
        f"{by} made {second} of **Oda Marrow** live.",
        f"{by} rolled **Oda Marrow** back to {first}.",
    ]


async def test_it_is_off_until_it_is_set_moves_and_goes_off(tmp_path):
    async with on_stage(tmp_path) as stage:
        assert "listed nowhere" in await moderated(stage, "moderation audit")
        before = lines(stage)
        await moderated(stage, "moderation limits", per_day=3)
        await audited(stage)
        assert not any("each day: 3" in line for line in lines(stage))
        assert len(lines(stage)) == len(before) + 2
    async with on_stage(tmp_path) as stage:
        assert "Changes are listed in <#" in await moderated(stage, "moderation audit")
        await moderated(stage, "moderation limits", per_day=4)
        await listed(stage, "each day: 4")
        await audited(stage, STAGE)
        await listed(stage, "moved the audit to <#")
        refused = await moderated(
            stage, "moderation audit", channel=stage.sandbox.channel(STAGE)["id"], off=True
        )
        assert "Choose one of the two." in refused
        assert "no longer listed" in await moderated(stage, "moderation audit", off=True)
        await listed(stage, "turned the audit off", STAGE)
        count = len(lines(stage, STAGE))
        await moderated(stage, "moderation limits", per_day=5)
        await stage.client.services.audit.close()  # waits for lines that are being posted
        assert len(lines(stage, STAGE)) == count


async def test_a_permission_that_is_revoked_is_told_at_once_and_hinders_nothing(stage):
    await audited(stage)
    stage.sandbox.set_bot_permissions(DEFAULT_BOT_PERMISSIONS & ~Permission.SEND_MESSAGES)
    guild = stage.client.get_guild(stage.sandbox.guild_id)
    await until(lambda: not guild.me.guild_permissions.send_messages)
    mark = stage.mark
    said = await moderated(stage, "moderation limits", per_day=7)
    assert "7 a day" in said
    told = await stage.sees("the audit channel does not list it", "message", mark)
    assert told["flags"] & 64 and "I lack the permission Send Messages" in told["content"]
    assert "Edit Channel of #harbour-office" in told["content"]
    assert read_limits(stage.store, int(stage.sandbox.guild_id)).per_day == 7
    assert "I lack the permission Send Messages" in await moderated(stage, "moderation audit")
    refused = await moderated(stage, "moderation audit", channel=stage.sandbox.channel(STAGE)["id"])
    assert "I lack the permission" in refused
    assert AUDIT_CHANNEL.read(stage.store, guild.id) == int(stage.sandbox.channel(OFFICE)["id"])
    mark = stage.mark
    reply = stage.client.services.reply_service
    oda = stage.client.services.personas.get("oda", 0)
    theatre = stage.client.get_channel(int(stage.sandbox.channel(STAGE)["id"]))
    assert reply.assign(oda, theatre, answers="mentions", user_id=int(stage.moderator.id))


async def test_a_button_tells_it_too_and_a_channel_that_is_gone(stage):
    await audited(stage)
    AUDIT_CHANNEL.write(stage.store, 99, int(stage.sandbox.guild_id))
    assert "The audit channel is gone" in await moderated(stage, "moderation audit")
    mark = stage.mark
    answer = await stage.moderator.slash(OFFICE, "finetune start", persona="oda")
    told = await stage.sees("The audit channel is gone", "message", mark)
    assert told["flags"] & 64
    await until(lambda: (answer.message or {}).get("components"))
    mark = stage.mark
    await stage.moderator.click(answer.message, "Cancel")
    await stage.sees("Done, but the audit channel does not list it.", "message", mark)


async def test_a_channel_that_is_gone_is_replaced_or_turned_off_without_a_warning(stage):
    guild, moderator = int(stage.sandbox.guild_id), int(stage.moderator.id)
    audit = stage.client.services.audit
    AUDIT_CHANNEL.write(stage.store, 99, guild)
    audit.record(guild, moderator, "did what is not listed")
    AUDIT_CHANNEL.write(stage.store, int(stage.sandbox.channel(OFFICE)["id"]), guild)
    audit.record(guild, moderator, "did what is listed")
    assert audit.take_problem(guild, moderator) == ""
    AUDIT_CHANNEL.write(stage.store, 99, guild)
    mark = stage.mark
    await audited(stage)
    AUDIT_CHANNEL.write(stage.store, 99, guild)
    assert "no longer listed" in await moderated(stage, "moderation audit", off=True)
    AUDIT_CHANNEL.write(stage.store, 99, guild)
    await moderated(stage, "moderation limits", per_day=3)
    await stage.sees("the audit channel does not list it", "message", mark)
    events = list(stage.sandbox.events)[mark:]
    told = [data for kind, data in events if kind == "message" and "not list it" in str(data)]
    assert len(told) == 1, "of the change of limits alone"


async def test_lines_beyond_the_limit_are_left_out_and_a_refusal_by_discord_breaks_nothing(
    stage, monkeypatch
):
    await audited(stage)
    audit = stage.client.services.audit
    guild = int(stage.sandbox.guild_id)
    monkeypatch.setattr(actions, "MAX_PENDING", 0)
    assert "more slowly" in audit.post(guild, "one more")
    monkeypatch.undo()
    stage.sandbox.fail_requests("POST /channels/{channel_id}/messages", "blocked", 1)
    audit.record(guild, None, "did what Discord refuses")
    audit.record(guild, None, "did what it takes")
    await listed(stage, "The bot did what it takes.")
    assert audit.post(77, "another server's") == "" and audit.post(0, "nobody's") == ""


async def test_members_may_not(stage):
    with pytest.raises(SandboxRefusal):
        await stage.member.slash(QUAY, "moderation audit", off=True)
