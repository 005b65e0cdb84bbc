"""A persona's card over a dialogue adapter: promoted from Discord, over REST and from the
dashboard, and taken back.
"""

import shutil

import pytest

from bot.platform.request_origin import OPERATOR_ORIGIN, RequestOrigin
from bot.privacy.guild_deletion import delete_guild
from bot.store import JobResult, Store
from bot.training.store import NewTrainingJob
from bot.versions.installation import VersionInstaller
from personas.home.adapters import (
    MANIFEST_FILE,
    WEIGHTS_FILE,
    adapter_ref,
    dialogue_adapter_folder,
    find_dialogue_adapters,
    verify_adapter,
    write_manifest,
)
from personas.home.data_subjects import write_people
from personas.home.pseudonyms import HomeKey, keyed_person
from personas.schemas.training import AdapterManifest, TrainingRequest
from sandbox import message_text
from tests.bot.conftest import INN, OFFICE, QUAY, on_stage
from tests.bot.test_bundled_adapter import PLAIN, sealed
from tests.bot.test_card_commands import response_text
from tests.bot.test_finetune import start
from tests.bot.test_parent_adapters import choices
from tests.bot.traceable_person import GUILD, WHO, begin, forgetter, plant
from tests.bot.web.conftest import dashboard_in
from tests.fakes import until
from tests.samples import SCORECARD

NAME = "dialogue_v1"
SERVED = "served"


def put_adapter(home, name=NAME, **changes):
    fields = {"persona": None, "version": "v1", "job_id": "by hand", "base_model": "embedded"}
    return sealed(
        dialogue_adapter_folder(home, name),
        changes.pop("base_model_hash", SERVED),
        **fields | changes,
    )


@pytest.fixture
async def served(tmp_path):
    async with on_stage(tmp_path, served_hash=SERVED) as stage:
        yield stage


async def promote(stage, words, channel=QUAY, **options):
    return await response_text(
        await stage.moderator.slash(channel, "finetune promote", **options), words
    )


async def test_from_the_training_to_the_card_that_speaks_with_it_and_back(served, tmp_path):
    await start(served, job_name=NAME, dataset="general-dialogue", task_type="dialogue", epochs=3)
    await until(lambda: served.backend.busy)
    put_adapter(tmp_path, job_id=served.backend.runs[0].job_id)
    served.backend.finish()
    result = message_text(await served.sees("Trained: **v1**"))
    assert "Promote…" in result and f"`/finetune promote version:dialogue/{NAME}`" in result
    assert (
        f"it is the model `dialogue/{NAME}`" in result
        and f"`start_from: {NAME}` trains it further." in result
    )

    assert await choices(served, "version", "finetune promote") == [f"dialogue/{NAME}"]
    await served.moderator.slash(QUAY, "finetune promote", version=f"dialogue/{NAME}")
    live = await served.sees("v1 of **Ballast** is live")
    assert f"dialogue adapter `{NAME}`" in live["content"]
    assert await choices(served, "version", "finetune promote") == ["v1", f"dialogue/{NAME}"]
    installed = adapter_ref(tmp_path, "ballast", "v1").folder
    assert (
        verify_adapter(installed).checksums
        == verify_adapter(dialogue_adapter_folder(tmp_path, NAME)).checksums
    )
    mark = served.mark
    await served.member.say(QUAY, "hello")
    assert f"AI-written · v1 (dialogue/{NAME})" in (await served.finished(QUAY, mark))["content"]
    request = served.engine.requests[-1]
    assert (request.persona.id, request.adapter.folder) == ("ballast", installed)
    await promote(served, "v1 of **Ballast** is live already.", version=f"dialogue/{NAME}")
    await served.moderator.slash(
        QUAY, "finetune promote", persona="oda", version=f"dialogue/{NAME}"
    )
    await served.sees("v1 of **Oda Marrow** is live from")

    status = await served.moderator.slash(OFFICE, "finetune status")
    assert "Installed: **Oda Marrow v1**" in status.message["content"]
    assert f"dialogue adapter `{NAME}`" in status.message["content"]
    history = await served.moderator.slash(QUAY, "finetune history")
    assert f"**v1** is the dialogue adapter `{NAME}`" in history.message["content"]
    await served.moderator.slash(QUAY, "finetune rollback")
    await served.sees("Rolled back: the base model answers for **Ballast**")


async def test_the_button_under_the_result_asks_for_the_persona(served, tmp_path):
    await start(served, job_name=NAME, dataset="general-dialogue", task_type="dialogue", epochs=3)
    await until(lambda: served.backend.busy)
    put_adapter(tmp_path, job_id=served.backend.runs[0].job_id)
    served.backend.finish()
    result = await served.sees("Trained: **v1**")
    await response_text(await served.member.click(result, "Promote…"), "Only moderators")
    menu = (await served.moderator.click(result, "Promote…")).message
    assert f"dialogue adapter `{NAME}`" in menu["content"]
    (select,) = menu["components"][0]["components"]
    known = served.client.services.personas.of(0).values()
    assert [it["label"] for it in select["options"]] == [it.name for it in known]
    await served.moderator.select(menu, f"promote-dialogue-to:{NAME}", ["oda"])
    live = await served.sees("v1 of **Oda Marrow** is live")
    assert f"dialogue adapter `{NAME}`" in live["content"]
    assert served.live("oda") == "v1" and served.live("ballast") is None
    shutil.rmtree(dialogue_adapter_folder(tmp_path, NAME))
    await response_text(
        await served.moderator.click(result, "Promote…"), "There is no dialogue adapter"
    )
    mark = served.mark
    await served.moderator.select(menu, f"promote-dialogue-to:{NAME}", ["thrip"])
    assert (await served.sees("There is no dialogue adapter", since=mark))["flags"] & 64, (
        "only who pressed sees it"
    )
    assert served.live("thrip") is None


async def test_what_cannot_be_used_is_refused_and_installs_nothing(served, tmp_path):
    request = TrainingRequest(job_name="theirs", task_type="dialogue", dataset="general-dialogue")
    served.store.jobs.add(NewTrainingJob("j8", 8, 1, 1, request), 1.0)
    put_adapter(tmp_path, "theirs", job_id="j8")
    put_adapter(tmp_path, "elsewhere", base_model="big/model", base_model_hash="other")
    (put_adapter(tmp_path, "damaged") / WEIGHTS_FILE).write_bytes(b"!")
    assert await choices(served, "version", "finetune promote") == [
        "dialogue/damaged",
        "dialogue/elsewhere",
    ]
    for name, words in (
        ("theirs", "There is no dialogue adapter 'theirs'. Known: damaged, elsewhere."),
        ("elsewhere", "dialogue/elsewhere was made for big/model, which is not served here."),
        ("damaged", "is damaged: adapter_model.safetensors does not match its checksum."),
        ("../../x", "There is no dialogue adapter '../../x'."),
    ):
        await promote(served, words, version=f"dialogue/{name}")
    assert served.store.versions.installed("ballast") == []
    assert not (tmp_path / "models" / "persona_adapters").exists()


async def test_one_that_the_gate_rejects_asks_first(served, tmp_path):
    put_adapter(
        tmp_path,
        metrics=SCORECARD.model_copy(update={"verdict": "reject", "reasons": ("It forgets.",)}),
    )
    question = await promote(
        served, "It forgets.", INN, version=f"dialogue/{NAME}", persona="ballast"
    )
    assert served.live("ballast") is None
    await served.moderator.click(question, "Promote anyway")
    await served.sees("v1 of **Ballast** is live")


async def test_over_rest_and_from_the_dashboard(tmp_path):
    async with dashboard_in(tmp_path / "home", served_hash=SERVED) as dashboard:
        put_adapter(dashboard.home)
        put_adapter(dashboard.home, "elsewhere", base_model="big/model", base_model_hash="other")
        page = "/dashboard/personas/oda/versions"
        for _ in range(2):
            _, _, headers = await dashboard.submit(page, dialogue=NAME)
            assert headers["Location"] == f"{page}/v1/promote", "the same files, the same version"
        _, made, _ = await dashboard.ask("GET", "/personas/oda/versions/v1")
        assert (made["dialogue"], made["live"]) == (NAME, False)
        for name, words in (
            ("none", "There is no dialogue adapter &#39;none&#39;."),
            ("elsewhere", "was made for big/model"),
        ):
            status, problem, _ = await dashboard.submit(page, dialogue=name)
            assert status == 409 and words in problem
        status, live, _ = await dashboard.ask("POST", "/personas/oda/versions/v1/promote")
        assert status == 200 and live["live"]

        page = (await dashboard.page("/dashboard/personas/ballast/versions"))[1]
        assert f"<option>{NAME}</option>" in page and "elsewhere" not in page
        status, _, headers = await dashboard.submit(
            "/dashboard/personas/ballast/versions", dialogue=NAME
        )
        assert headers["Location"].startswith("/dashboard/personas/ballast/versions/v1/promote")
        assert (
            f">dialogue/{NAME}</a>"
            in (await dashboard.page("/dashboard/personas/ballast/versions"))[1]
        )
        assert (await dashboard.submit("/dashboard/personas/ballast/versions", dialogue="none"))[
            0
        ] == 409


class Hooks:
    """The running bot's part in an erasure, as far as it concerns versions."""

    busy = ()

    def __init__(self):
        self.unloaded = []

    async def interrupt_jobs(self, jobs):
        pass

    async def replies_ended(self):
        pass

    async def unload_version(self, persona_id, version):
        self.unloaded.append((persona_id, version))

    async def files_changed(self, paths):
        pass

    async def follow(self, receipt):
        return receipt


async def test_one_trained_on_an_erased_person_is_unloaded_and_its_card_goes_back(tmp_path):
    """The copy is withdrawn like any version; the dialogue adapter is dropped from the engine, then
    deleted.
    """
    home = tmp_path / "home"
    plant(home)
    shutil.rmtree(dialogue_adapter_folder(home, "manners"))
    folders = [put_adapter(home, name) for name in ("manners", "clean")]
    write_people(folders[0], {keyed_person(HomeKey.of(home).people(), str(WHO)): 1})
    write_manifest(
        folders[0], AdapterManifest.model_validate_json((folders[0] / MANIFEST_FILE).read_bytes())
    )
    with Store.open(home / "understudy.sqlite") as store:
        for version, name in (("v1", "clean"), ("v2", "manners")):
            adapter = find_dialogue_adapters(home)[name]
            installer = VersionInstaller(home, store)
            origin = RequestOrigin(GUILD, 1, 2)
            assert await installer.install_dialogue(origin, "thrip", adapter) == version
            store.versions.promote("thrip", version, 2, 50.0)
        runner = forgetter(home, store, hooks=(hooks := Hooks()))
        receipt = await runner.run(begin(home, store))
        assert store.versions.live("thrip", 0) == "v1" and store.versions.is_withdrawn(
            "thrip", "v2"
        )
    assert {("dialogue/manners", "v1"), ("thrip", "v2")} <= {*hooks.unloaded}
    assert ("dialogue/clean", "v1") not in hooks.unloaded and folders[1].exists()
    assert not folders[0].exists() and not adapter_ref(home, "thrip", "v2").folder.exists()
    assert [one.persona_id for one in receipt.dialogues] == ["manners"]


async def test_with_a_server_its_adapters_and_their_copies_go(tmp_path):
    """A shared persona whose live version is a copy goes back, whoever installed it; the operator's
    stays.
    """
    (
        put_adapter(tmp_path, "theirs", job_id="j8"),
        put_adapter(tmp_path, "operators", config=PLAIN | {"r": 8}),
    )
    with Store.open(tmp_path / "understudy.sqlite") as store:
        request = TrainingRequest(
            job_name="theirs", task_type="dialogue", dataset="general-dialogue"
        )
        store.jobs.add(NewTrainingJob("j8", 8, 1, 1, request), 1.0)
        claimed = store.jobs.claim(store.jobs.get("j8"), "token", 2.0)
        result = JobResult(adapter="", seconds=1.0, scorecard=SCORECARD)
        store.jobs.complete("j8", claimed.attempt_token, result, 3.0)
        for name, origin in (("operators", RequestOrigin(8, 1, 2)), ("theirs", OPERATOR_ORIGIN)):
            adapter = find_dialogue_adapters(tmp_path)[name]
            version = await VersionInstaller(tmp_path, store).install_dialogue(
                origin, "oda", adapter
            )
            store.versions.promote("oda", version, 2, 50.0)
        assert store.versions.live("oda", 0) == "v2"
        delete_guild(tmp_path, store, 8, 60.0)
        assert store.versions.live("oda", 0) == "v1" and [
            it.version for it in store.versions.installed("oda")
        ] == ["v1"]
    assert [*find_dialogue_adapters(tmp_path)] == ["operators"]
    assert not adapter_ref(tmp_path, "oda", "v2").folder.exists()
