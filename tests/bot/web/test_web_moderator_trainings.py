"""Moderators on the web: trainings are planned, started, watched and cancelled, as on Discord."""

import pytest

from bot.demo_guild import MEMBER, MODERATOR
from bot.training.backend_protocol import TrainingFailed
from bot.training.backends.job_folder_backend import job_folder
from personas.errors import RequestError
from personas.home.written_replies import (
    REVIEW_ADVICE,
    WrittenReply,
    read_written,
    store_written,
    written_file,
)
from personas.schemas.training_events import Phase
from tests.bot.conftest import OFFICE, QUAY
from tests.bot.test_finetune import STEP
from tests.bot.web.moderator_stage import OTTO, SERVERS
from tests.fakes import until

NAME = "Marlow Finch"


def only_job(town, guild_id):
    (job,) = town.stage.store.jobs.of_guild(guild_id)
    return job


async def test_a_training_is_planned_started_watched_and_cancelled(town):
    persona_id = town.bring_in(town.first, NAME)
    store, user_id = town.stage.store, town.user_id(MODERATOR)
    store.audit_channels.set(town.first, town.channel_id(OFFICE, town.first))
    browser = await town.signed_in(MODERATOR)
    home = f"{SERVERS}/{town.first}"
    form = (await browser.get(f"{home}/train")).text
    shown, more = form.split("<details", 1)
    assert shown.count("<select") == 2 and 'name="persona"' in shown and 'name="recipe"' in shown
    assert 'name="settings"' in more and "Start</button>" not in form
    given = {
        "persona": persona_id, "recipe": "demo-cpu", "source": "card", "epochs": "2",
        "settings": "lora_r=8", "channel": str(town.channel_id(QUAY, town.first)),
        # Fields that only the operator's form has:
        "base_model": "owner/other", "dataset_path": "/etc/passwd",
    }  # fmt: skip
    plan = (await browser.submit(f"{home}/train", **given)).text
    assert "120 replies" in plan and "2 min 5 s" in plan and "Nothing is queued yet." in plan
    assert "Start</button>" in plan and store.jobs.of_guild(town.first) == []
    answer = await browser.submit(f"{home}/train", **given, start="yes")
    job = only_job(town, town.first)
    page = f"{home}/trainings/{job.job_id}"
    assert (answer.status, answer.location) == (303, page), answer.text
    assert job.requested_by == user_id and job.channel_id == town.channel_id(QUAY, town.first)
    wanted = job.request
    assert (wanted.persona, wanted.from_card, wanted.recipe) == (persona_id, 1.0, "demo-cpu")
    assert (wanted.hyperparameters.lora_r, wanted.hyperparameters.num_train_epochs) == (8, 2)
    assert (wanted.base_model, wanted.dataset_path, wanted.review) == ("embedded", None, None)
    await town.stage.sees(f"<@{user_id}> started the training of **{persona_id}**")
    await until(lambda: town.stage.backend.busy)
    town.stage.backend.on_event(STEP)
    for path in (page, f"{home}/trainings"):
        shown = (await browser.get(path)).text
        assert "<b>42 %</b> · training · ready in about <b>5 min</b>" in shown
        assert "data-poll" in shown and f'action="{page}/cancel"' in shown
    assert (await browser.submit(f"{page}/cancel")).location == page
    assert only_job(town, town.first).state == "cancelled"
    await town.stage.sees(f"<@{user_id}> stopped the training of **{persona_id}**")
    shown = (await browser.get(page)).text
    assert "Cancelled." in shown and "data-poll" not in shown and "/cancel" not in shown
    again = await browser.submit(f"{page}/cancel")
    assert again.status == 409, again.text


async def test_a_failed_training_is_resumed_and_its_result_leads_to_the_version(town):
    persona_id = town.bring_in(town.first, NAME)
    backend = town.stage.backend
    browser = await town.signed_in(MODERATOR)
    home = f"{SERVERS}/{town.first}"
    await browser.submit(f"{home}/train", persona=persona_id, start="yes")
    await until(lambda: backend.busy)
    job = only_job(town, town.first)
    page = f"{home}/trainings/{job.job_id}"
    backend.finish(TrainingFailed("/etc/hosts is full.", "Free some.", can_resume=True))
    await until(lambda: only_job(town, town.first).state == "failed")
    shown = (await browser.get(page)).text
    assert "hosts is full." in shown and "/etc/hosts" not in shown
    assert f'action="{page}/resume"' in shown
    assert (await browser.submit(f"{page}/resume")).location == page
    await until(lambda: backend.busy)
    backend.finish()
    await until(lambda: only_job(town, town.first).state == "done")
    shown = (await browser.get(page)).text
    version = f"{home}/personas/{persona_id}/versions/{job.version}"
    assert f'href="{version}"' in shown and "/resume" not in shown
    assert (await browser.get(version)).status == 200
    assert (await browser.submit(f"{page}/resume")).status == 409


async def test_written_replies_are_read_and_changed_before_the_training(town):
    persona_id = town.bring_in(town.first, NAME)
    backend = town.stage.backend
    browser = await town.signed_in(MODERATOR)
    home = f"{SERVERS}/{town.first}"
    given = {"persona": persona_id, "source": "card", "review": "yes"}
    assert "Let me read the replies first" in (await browser.get(f"{home}/train")).text
    await browser.submit(f"{home}/train", **given, start="yes")
    await until(lambda: backend.busy)
    job = only_job(town, town.first)
    assert job.request.review is True
    page = f"{home}/trainings/{job.job_id}"
    backend.on_event(Phase(name="writing replies", count=1, of=150, left_s=600))
    assert "The time does not include the reading" in (await browser.get(page)).text
    file = written_file(job_folder(town.stage.client.services.home, job.job_id))
    file.parent.mkdir(parents=True)
    store_written(file, [WrittenReply(3, "who are you?", "A lamp.", "self")])
    backend.finish(TrainingFailed("1 reply is written.", REVIEW_ADVICE, can_resume=True))
    await until(lambda: only_job(town, town.first).state == "failed")
    for path in (page, f"{home}/trainings"):
        shown = (await browser.get(path)).text
        badge = f'<a class="badge" href="{page}/written">waits to be read</a>'
        assert badge in shown and 'class="badge bad"' not in shown
    shown = (await browser.get(f"{page}/written")).text
    assert "A lamp.</textarea>" in shown and f'action="{page}/resume"' in shown
    edit = {"seen-3": "A lamp.", "reply-3": "I am Marlow."}
    changed = await browser.submit(f"{page}/written", **edit, do="save 3")
    assert (changed.status, changed.location) == (303, f"{page}/written#written-3")
    assert [reply.reply for reply in read_written(file)] == ["I am Marlow."]
    persona = town.stage.client.services.personas.get(persona_id, town.first)
    age = town.stage.client.services.reply_service.rules.age
    age.set(persona, town.first, is_restricted=True)
    assert f"{page}/written" not in (await browser.get(page)).text
    for hidden in (
        await browser.get(f"{page}/written"),
        await browser.submit(f"{page}/written", do="strike 3"),
    ):
        assert hidden.status == 403 and "is age-restricted" in hidden.text
        assert "I am Marlow." not in hidden.text
    age.set(persona, town.first, is_restricted=False)
    stranger = await town.signed_in(OTTO)
    assert (await stranger.get(f"{page}/written")).status in (403, 404)
    refused = await stranger.submit(f"{page}/written", do="strike 3")
    assert refused.status in (403, 404) and read_written(file)


async def test_what_cannot_be_trained_is_said_on_the_form(town):
    browser = await town.signed_in(MODERATOR)
    path = f"{SERVERS}/{town.first}/train"
    other = town.bring_in(town.second, "Lamplighter")
    for given, words in (
        ({"persona": other}, "There is no such persona here."),
        ({"persona": "oda", "epochs": "many"}, "num_train_epochs"),
        ({"persona": "oda", "epochs": "2", "settings": "num_train_epochs=3"}, "is set twice"),
        ({"persona": "oda", "recipe": "x" * 65}, "recipe"),
        ({"persona": "oda", "channel": str(town.channel_id("boathouse", town.second))}, "channel"),
    ):
        answer = await browser.submit(path, **given, start="yes")
        assert answer.status in (404, 422) and words in answer.text, (given, answer.text)
        assert "There is a problem" in answer.text and 'name="settings"' in answer.text
    town.stage.backend.refusal = RequestError("There is no GPU in /etc/hosts.", "Add one.")
    answer = await browser.submit(path, persona="oda")
    assert answer.status == 422 and "There is no GPU" in answer.text
    assert town.stage.store.jobs.in_state("queued") == []


async def test_trainings_of_others_are_neither_listed_nor_found_nor_named(town):
    """Also not as the one that a queued training waits for."""
    lamplighter = town.bring_in(town.second, "Lamplighter")
    otto, mina = await town.signed_in(OTTO), await town.signed_in(MODERATOR)
    await otto.submit(f"{SERVERS}/{town.second}/train", persona=lamplighter, start="yes")
    await until(lambda: town.stage.backend.busy)
    await mina.submit(f"{SERVERS}/{town.first}/train", persona="oda", start="yes")
    theirs, own = only_job(town, town.second), only_job(town, town.first)
    home = f"{SERVERS}/{town.first}"
    for path in (f"{home}/trainings", f"{home}/trainings/{own.job_id}"):
        shown = (await mina.get(path)).text
        assert "Place 1 in the queue." in shown
        assert "Lamplighter" not in shown and theirs.job_id not in shown
    page = f"{home}/trainings/{theirs.job_id}"
    assert (await mina.get(page)).status == 404
    for path in ("cancel", "resume"):
        assert (await mina.submit(f"{page}/{path}")).status == 404
    assert only_job(town, town.second).state == "running"
    town.stage.backend.on_event(Phase(name="training"))


@pytest.mark.parametrize(("action", "may_train"), [("train", True), ("promote", False)])
async def test_a_member_sees_the_controls_that_their_role_allows(town, action, may_train):
    persona_id = town.bring_in(town.first, NAME)
    version = town.install(persona_id, town.first)
    town.install(persona_id, town.first)
    town.stage.store.action_roles.add(town.first, action, town.role_id("Regular", town.first))
    mina, tobias = await town.signed_in(MODERATOR), await town.signed_in(MEMBER)
    home = f"{SERVERS}/{town.first}"
    await mina.submit(f"{home}/train", persona="oda", start="yes")
    await until(lambda: town.stage.backend.busy)
    job = town.stage.store.jobs.in_state("running")[0]
    page = f"{home}/trainings/{job.job_id}"
    for path in (page, f"{home}/trainings"):
        assert ("/cancel" in (await tobias.get(path)).text) == may_train
    assert (f'href="{home}/train"' in (await tobias.get(home)).text) == may_train
    versions = (await tobias.get(f"{home}/personas/{persona_id}")).text
    for control in (f"Promote {version}", "/rollback", "/rollout", "/compare"):
        assert (control in versions) != may_train, control
    assert "/card" not in versions and "Try a version" not in versions.split("<details")[0]
    refused = await tobias.submit(f"{page}/cancel")
    assert refused.status == (303 if may_train else 403)
    assert (town.stage.store.jobs.get(job.job_id).state == "cancelled") == may_train
