"""What the bot has a new version compared with."""

import pytest

from bot.personas.registry import PersonaRegistry
from bot.store import JobResult, Store
from bot.training.backends.job_folder_backend import write_job_folder
from bot.training.store import NewTrainingJob
from bot.versions.member_feedback import comparison_targets
from personas.card.toml_card import SHIPPED_CARDS
from personas.home.comparison_targets import NO_COMPARISON, read_comparison_targets
from personas.schemas.training import TrainingRequest
from tests.samples import SCORECARD

GUILD = 7
OTHER = 8


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "understudy.sqlite")
    yield store
    store.close()


@pytest.fixture
def personas(tmp_path):
    return PersonaRegistry(SHIPPED_CARDS, tmp_path)


def request(persona):
    return TrainingRequest(job_name="test", persona=persona)


def speaking(store, persona, job_id, guild=GUILD):
    """A persona with a version that is live in a guild; gives the version."""
    job = store.jobs.add(NewTrainingJob(job_id, guild, 1, 1, request(persona)), 1.0)
    store.jobs.claim(job, "token", 2.0)
    store.jobs.complete(
        job_id, "token", JobResult(adapter="a", seconds=1, scorecard=SCORECARD), 3.0
    )
    store.versions.promote(persona, job.version, 1, 4.0, guild_id=guild)
    return job.version


def new_job(store, persona, guild=GUILD):
    return store.jobs.add(NewTrainingJob("new", guild, 1, 1, request(persona)), 5.0)


def test_compared_are_the_live_version_and_the_neighbours_that_are_live(store, personas, tmp_path):
    job = new_job(store, "ballast")
    assert comparison_targets(tmp_path, store, personas, job) == NO_COMPARISON, (
        "nobody has learned anything yet"
    )
    live = speaking(store, "ballast", "j1")
    version = speaking(store, "oda", "j2")
    found = comparison_targets(tmp_path, store, personas, job)
    assert found.live == str(tmp_path / "models" / "persona_adapters" / "ballast" / live)
    (oda,) = found.neighbours
    assert (oda.persona, oda.job) == (
        "oda",
        str(tmp_path / "jobs" / "j2"),
    ) and oda.adapter.endswith(f"oda/{version}")


def test_the_folder_of_a_job_says_what_is_live_today(store, personas, tmp_path):
    job = new_job(store, "ballast")
    folder = write_job_folder(
        tmp_path,
        job,
        (),
        precision="float32",
        compare=comparison_targets(tmp_path, store, personas, job),
    )
    assert read_comparison_targets(folder) == NO_COMPARISON
    speaking(store, "oda", "j2")
    again = write_job_folder(
        tmp_path,
        job,
        (),
        precision="float32",
        compare=comparison_targets(tmp_path, store, personas, job),
    )
    assert again == folder and [
        it.persona for it in read_comparison_targets(folder).neighbours
    ] == ["oda"]


def test_a_guild_is_compared_with_nothing_that_it_does_not_see(store, personas, tmp_path):
    speaking(store, "oda", "j1")
    speaking(store, "thrip", "j3", guild=GUILD + 1)  # shared, but live there alone
    speaking(store, "mira-8", "j2")  # that of the other guild: its card is not this one's
    found = comparison_targets(tmp_path, store, personas, new_job(store, "ballast"))
    assert [it.persona for it in found.neighbours] == ["oda"]
