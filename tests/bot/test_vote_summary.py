"""What members have made of a version: as the gate reads it, and before somebody promotes it."""

from dataclasses import replace

import pytest

from bot.guild_settings.definitions import IS_PROMOTION_AUTOMATIC
from bot.platform.request_origin import OPERATOR_ORIGIN
from bot.store import JobResult, NewBlindComparison, Store
from bot.versions.member_feedback import record_vote, summarise_votes, vote_objections
from personas.home.comparison_targets import COMPARE_FILE, read_comparison_targets
from personas.schemas.scorecard import MemberFeedback
from tests.bot.conftest import QUAY, on_stage
from tests.bot.version_rows import install, rate, reply
from tests.fake_engine import FakeEngine
from tests.fakes import until
from tests.samples import SCORECARD

HERE = 9


def install_two(store):
    for _ in range(2):
        install(store)
    store.versions.promote("ballast", "v1", 1, 2.0)


@pytest.fixture
async def stage(tmp_path):
    """Two versions of Ballast are installed; v1 speaks."""
    async with on_stage(tmp_path, engine=FakeEngine()) as made:
        install_two(made.store)
        yield made


def vote(store, user, choice, *, guild=HERE, at=10.0):
    """A vote between v2, which is A, and v1."""
    new = NewBlindComparison(
        guild, "ballast", user, "p", "Hello?", "v2", "v1", "one", "other", 1, 2
    )
    one = store.comparisons.show(new, at)
    assert store.comparisons.vote(one.seq, user, choice, at + 5)
    return store.comparisons.get(one.seq)


def votes(store, members, choice, **more):
    """Ten votes of each of so many members; gives the last."""
    return [
        vote(store, user, choice, at=10.0 + 60 * n, **more)
        for user in range(members)
        for n in range(10)
    ][-1]


@pytest.fixture
def store(tmp_path):
    """The store alone, with the same versions."""
    with Store.open(tmp_path / "understudy.sqlite") as opened:
        install_two(opened)
        yield opened


def of_v2(store, guild=None):
    return summarise_votes(store, "ballast", "v2", 1_000_000.0, guild)


class TestVotes:
    """Blind ones."""

    def test_nothing_is_reported_of_what_nobody_saw_nor_of_what_speaks(self, store):
        assert of_v2(store) is None
        votes(store, 12, "b")
        assert summarise_votes(store, "ballast", "v1", 1_000_000.0) is None

    def test_few_members_are_counted_and_make_nothing_certain(self, store):
        votes(store, 5, "b")
        found = of_v2(store)
        assert (found.against, found.votes, found.members, found.preferred) == ("v1", 50, 5, None)
        assert vote_objections(found) == ()

    def test_many_who_prefer_the_other_are_certain(self, store):
        votes(store, 30, "b")
        found = of_v2(store)
        assert found.members == 30 and found.preferred == 0.0
        (objection,) = vote_objections(found)
        assert objection == "Members prefer v1 in blind comparisons: 100% of them."

    def test_many_who_prefer_it_hold_nothing_against_it(self, store):
        votes(store, 30, "a")
        found = of_v2(store)
        assert found.preferred == 1.0 and vote_objections(found) == ()

    def test_a_guild_is_warned_about_its_own(self, store):
        votes(store, 30, "b")
        assert of_v2(store, HERE) and of_v2(store, HERE + 1) is None


class TestThumbs:
    """👍 and 👎 under replies."""

    @pytest.mark.parametrize("first", ["v1", "v2"])
    def test_members_who_rate_it_worse_object_whichever_they_heard_first(self, store, first):
        rate(store, 10, first=first)
        found = of_v2(store, HERE)
        assert (found.up, found.down) == ((0, 30), (30, 0)) and found.liked == 0.0
        assert "30 👎 and 0 👍" in vote_objections(found)[0]

    def test_who_complains_of_both_alike_counts_for_neither(self, store):
        rate(store, 10, other=-1)
        found = of_v2(store, HERE)
        assert found.down == (30, 30) and found.liked is None and vote_objections(found) == ()

    def test_one_member_counts_once_however_much_they_rate(self, store):
        rate(store, 9)
        rate(store, 1, ratings=50, start=9, other=-1)
        found = of_v2(store, HERE)
        assert found.liked is None and found.down == (27 + 50, 50)

    def test_a_member_who_has_rated_one_version_alone_does_not_count(self, store):
        event = reply(store, at=6.0, version="v2", guild=HERE)
        store.replies.vote(event, 3, -1, 7.0)
        found = of_v2(store)
        assert found.down == (1, 0) and found.liked is None and vote_objections(found) == ()


async def test_a_vote_is_noted_in_the_folder_of_the_job_that_made_the_version(stage):
    last = votes(stage.store, 12, "b")
    services = stage.client.services
    await record_vote(services.home, services.store, services.personas, last)
    folder = services.home / "jobs" / services.store.versions.job_of("ballast", "v2")
    assert not folder.exists(), "nothing is made anew of a job whose folder is gone"
    folder.mkdir(parents=True)
    await record_vote(services.home, services.store, services.personas, last)
    found = read_comparison_targets(folder)
    assert (
        isinstance(found.heard, MemberFeedback)
        and found.heard.against == "v1"
        and found.heard.votes == 120
    )
    assert found.live.endswith("ballast/v1")


async def test_thumbs_are_noted_too(stage):
    services = stage.client.services
    folder = services.home / "jobs" / services.store.versions.job_of("ballast", "v2")
    folder.mkdir(parents=True)
    rate(services.store, 10)
    event = reply(services.store, at=30.0, version="v2", guild=HERE)
    services.store.replies.vote(event, 1, -1, 40.0)
    stage.client.dispatch("reply_judged", event)
    await until(lambda: (folder / COMPARE_FILE).exists())
    found = read_comparison_targets(folder).heard
    assert (found.up, found.down, found.liked) == ((0, 30), (31, 0), 0.0)


async def test_thumbs_on_the_live_version_are_noted_once_it_is_rolled_back(stage):
    services = stage.client.services
    folder = services.home / "jobs" / services.store.versions.job_of("ballast", "v2")
    folder.mkdir(parents=True)
    services.store.versions.promote("ballast", "v2", 1, 3.0)
    rate(services.store, 10)
    ballast = services.personas.get("ballast", 0)
    services.versions.roll_back(ballast, OPERATOR_ORIGIN)
    await until(lambda: (folder / COMPARE_FILE).exists())
    found = read_comparison_targets(folder)
    assert found.heard.against == "v1" and found.heard.liked == 0.0
    assert found.live.endswith("ballast/v1")


async def test_who_promotes_what_members_dislike_is_asked_once_more(stage):
    guild = stage.client.guilds[0].id
    votes(stage.store, 30, "b", guild=guild)
    await stage.moderator.slash(QUAY, "finetune promote", version="v2")
    asked = await stage.sees("against v2 of **Ballast**")
    assert "- Members prefer v1" in asked["content"] and stage.live("ballast") == "v1"
    await stage.moderator.click(asked, "Promote anyway")
    await stage.sees("v2 of **Ballast** is live")


@pytest.mark.parametrize(("choice", "is_promoted"), [("b", False), ("a", True)])
async def test_what_members_dislike_is_not_promoted_by_itself(stage, choice, is_promoted):
    services = stage.client.services
    guild = stage.client.guilds[0].id
    IS_PROMOTION_AUTOMATIC.write(services.store, True, guild)
    job = services.store.jobs.get(services.store.versions.job_of("ballast", "v2"))
    better = JobResult(
        adapter="a", seconds=1, scorecard=SCORECARD.model_copy(update={"verdict": "promote"})
    )
    votes(services.store, 30, choice, guild=guild)
    with services.store._connection.atomic():
        services.store._connection.write(
            "update jobs set decision = null where job_id = :job", job=job.job_id
        )
    finished = replace(job, guild_id=guild, result_json=better.model_dump_json())
    decided = await services.versions.decide(finished)
    assert decided.decision == ("promoted" if is_promoted else "manual")
    assert await services.versions.decide(finished) is None, "the decision is stored once"
    assert services.store.versions.live("ballast", guild) == ("v2" if is_promoted else "v1")
