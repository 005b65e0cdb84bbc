"""What is said to the bot never becomes training data by default: not by any data set that there
is.
"""

from pathlib import Path

import pytest

from bot.training.dataset_catalog import DatasetCatalog
from bot.training.request_materials import gather_materials
from personas.errors import RequestError
from personas.home.job_folder import fill_job_folder
from personas.schemas.training import TrainingRequest
from tests.bot.conftest import QUAY
from tests.bot.stored_messages import guild_messages

WORDS = "the vermilion astrolabe of Quillon Vane"


async def reply_to(stage, words):
    mark = stage.mark
    await stage.member.say(QUAY, words)
    return await stage.finished(QUAY, mark)


async def test_a_talk_its_votes_and_its_regenerations_are_in_no_job(stage, tmp_path):
    reply = await reply_to(stage, f"Have you seen {WORDS}?")
    mark = stage.mark
    event = stage.store.replies.of_message(int(reply["id"])).event_id
    await stage.member.click(reply, f"again:{event}")
    await stage.finished(QUAY, mark)
    await stage.member.click(reply, f"vote+1:{event}")
    assert stage.store.replies.votes(event).up == 1
    said = guild_messages(stage.store, stage.sandbox.guild_id)
    assert any(WORDS in message.text for message in said), "it was kept as history"

    catalogue: DatasetCatalog = stage.client.services.catalogue
    assert "history" not in catalogue.datasets()
    guild_id = stage.sandbox.guild_id
    home = stage.client.services.home
    names = [*catalogue.datasets(), None]
    for number, (persona, dataset) in enumerate(
        (p, d) for p in ("ballast", "oda", None) for d in names
    ):
        task = "persona" if persona else "dialogue"
        request = TrainingRequest(job_name="j", persona=persona, dataset=dataset, task_type=task)
        try:
            materials = gather_materials(catalogue, request, guild_id)
        except RequestError:
            continue
        folder = tmp_path / "jobs" / str(number)
        folder.mkdir(parents=True)
        fill_job_folder(folder, home, "j", "v1", request, materials, "float32")
    made = list((tmp_path / "jobs").iterdir())
    assert len(made) > len(names), "there is something to search"
    assert not holding(tmp_path / "jobs", "Quillon Vane")
    with pytest.raises(RequestError, match="DISCORD_PERMISSION"):
        gather_materials(
            catalogue, TrainingRequest(job_name="j", persona="ballast", dataset="history"), guild_id
        )


def holding(folder: Path, words: str) -> list[Path]:
    """The files below a folder in which these words stand."""
    return [
        file for file in folder.rglob("*") if file.is_file() and words.encode() in file.read_bytes()
    ]
