"""A version that was trained from a card mixed with members' exchanges is withdrawn with a member, and all that
was made for it goes; one from the card alone has nothing of anybody, and stays.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from bot.privacy.consent_files import ConsentMirror
from bot.store import ConsentDecision
from bot.training.backends.job_folder_backend import install_adapter, write_job_folder
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.request_materials import gather_materials
from bot.training.store import JobResult, NewTrainingJob
from personas.home.adapters import adapter_ref
from personas.home.data_subjects import read_consent, read_people
from personas.home.external_files import record_export
from personas.home.job_material import ShippedData
from personas.home.written_replies import WRITTEN_FOLDER
from personas.schemas.training import Teacher, TrainingRequest
from tests.bot.conftest import QUAY, on_stage
from tests.bot.test_privacy_commands import response_text
from tests.bot.test_teacher_server import PERMISSION, SMALL, recording
from tests.fakes import until
from tests.quick_libraries import save_blank
from tests.samples import SCORECARD
from trainer.dataset.synthetic import reply_backends
from trainer.run import run_job
from trainer.train.training_run import RunControl

OTHER = 734_829_104_458_293_999
ASKED = "Does the brass heron on Tallowmere Street number {} turn its head at noon?"
OTHERS_ASKED = "Who mends ferry number {} when the ice comes?"
SHORT = SMALL | {"max_length": 1200, "lora_r": 4, "num_train_epochs": 1, "max_steps": 2}
pytestmark = pytest.mark.usefixtures("_few_charts")


@pytest.fixture
def _few_charts(monkeypatch):
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", save_blank)
    monkeypatch.setattr(reply_backends, "RETRY_DELAY_S", 0.0)


def say(stage, who, name, asked, first):
    """Store eight exchanges of a member, who has opted in, with Ballast."""
    stage.store.people.decide(ConsentDecision(who, True, 3.0, "en"))
    for number in range(8):
        event = first + 2 * number
        place = {"guild_id": stage.sandbox.guild_id, "channel_id": 5, "at": time.time() - event}
        text = asked.format(number)
        seq = stage.store.messages.append(
            author_id=who, author_name=name, text=text, discord_message_id=event, **place
        )
        stage.store.replies.begin(
            event, persona_id="ballast", asked_by=who, trigger_seq=seq, **place
        )
        stage.store.replies.record_parts(event, [event + 1])
        stage.store.replies.finish(event, "done")
        stage.store.messages.append(
            author_id=0, author_name="Ballast", text=f"I saw {text.lower()} Number {number}, said the gull.",
            discord_message_id=event + 1, persona_id="ballast", **place,
        )  # fmt: skip


async def trained(stage, catalogue, job_id, request):
    """Train a version as the bot does, and make it live. Returns the job's folder."""
    guild = stage.sandbox.guild_id
    stage.store.jobs.add(NewTrainingJob(job_id, guild, 5, OTHER, request), time.time())
    job = stage.store.jobs.get(job_id)

    def train():
        materials = gather_materials(catalogue, request, guild)
        folder = write_job_folder(catalogue.home, job, materials, precision="float32")
        run_job(folder, RunControl())
        install_adapter(catalogue.home, job, folder)
        return folder

    folder = await asyncio.to_thread(train)
    claimed = stage.store.jobs.claim(job, "token", time.time())
    result = JobResult(adapter=str(folder), seconds=1, scorecard=SCORECARD)
    stage.store.jobs.complete(job_id, claimed.attempt_token, result, time.time())
    stage.store.versions.promote("ballast", job.version, OTHER, time.time())
    return folder


def left_in(home, *words):
    found = []
    for file in home.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            found += [(file, word) for word in words if word.encode() in content]
    return found


@pytest.mark.slow
async def test_the_mixed_version_goes_with_the_member_and_the_one_from_the_card_stays(
    tmp_path, tiny_base
):
    async with recording() as server, on_stage(tmp_path, permission=PERMISSION) as stage:
        member = int(stage.member.id)
        name = stage.member.name
        say(stage, member, "Tobias Reed", ASKED, 3000)
        say(stage, OTHER, "Wendell Park", OTHERS_ASKED, 5000)
        catalogue = DatasetCatalog(
            ShippedData.from_source_tree(), tiny_base.source, tmp_path, stage.store
        )
        ConsentMirror(tmp_path, stage.store, PERMISSION).mirror()
        teacher = Teacher(model="tester", url=server.url, licence="MIT")
        asked = {
            "persona": "ballast", "base_model": tiny_base.source, "recipe": "card", "teacher": teacher,
            "hyperparameters": SHORT,
        }  # fmt: skip
        alone = TrainingRequest(job_name="alone", from_card=1, **asked)
        mixed = TrainingRequest(job_name="mixed", from_card=0.5, dataset="history", **asked)
        await stage.client.services.queue.stop()  # its backend trains nothing
        from_card = await trained(stage, catalogue, "from-card", alone)
        from_both = await trained(stage, catalogue, "from-both", mixed)
        stage.client.services.queue.start()
        adapter = adapter_ref(tmp_path, "ballast", "v2").folder
        assert stage.live("ballast") == "v2" and len(read_people(adapter)) >= 2
        assert not read_people(from_card) and read_consent(from_card).opted_in >= {str(member)}
        assert (from_both / WRITTEN_FOLDER).is_dir() and left_in(from_both, "brass heron")
        export = tmp_path / "exports" / "ballast.charx"
        export.parent.mkdir()
        export.write_bytes(b"a card with the adapter inside")
        record_export(tmp_path, "adapter", export, read_people(adapter))

        answer = await stage.member.slash(QUAY, "privacy opt-out")
        message = await response_text(answer, "stay in use:")
        assert "ballast v2" in message["content"] and "ballast v1" not in message["content"]
        mark = stage.mark
        await stage.member.click(message, "Withdraw these too")
        said = await stage.sees("v2 of Ballast has been withdrawn", since=mark)
        assert "v1 replies now" in said["content"] and "being trained" in said["content"]
        assert stage.live("ballast") == "v1" and from_card.is_dir()
        assert not any(path.exists() for path in (adapter, from_both, export))
        assert not left_in(tmp_path / "jobs", "brass heron", str(member))
        assert not left_in(tmp_path / "models", "brass heron", str(member))
        await until(lambda: stage.backend.runs)
        again = stage.backend.runs[-1].request
        materials = await asyncio.to_thread(
            gather_materials, catalogue, again, stage.sandbox.guild_id
        )
        (log,) = [material.text for material in materials if material.kind == "log"]
        # The settings name no teacher now.
        assert again == mixed.model_copy(update={"teacher": None})
        assert "ferry number" in log and "heron" not in log

        answer = await stage.member.slash(QUAY, "privacy forget")
        message = await response_text(answer, "**Forget you?**")
        mark = stage.mark
        await stage.member.click(message, "Forget me")
        receipt = await stage.sees("Done: you have been forgotten", since=mark)
        assert "Withdrawn" not in receipt["content"]
        assert stage.live("ballast") == "v1" and (from_card / WRITTEN_FOLDER).is_dir()
    assert not left_in(tmp_path, "brass heron", "Tobias", name, str(member))
