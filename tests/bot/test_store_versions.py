"""Which version is live, for any sequence of trainings, promotions and rollbacks: compared with a
plain stack.
"""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bot.store import JobResult, Store, guild_suffix
from bot.training.store import NewTrainingJob
from personas.errors import RequestError
from personas.schemas.training import TrainingRequest
from tests.bot.version_rows import install
from tests.samples import SCORECARD

GUILDS = (0, 1, 2)


class Promotions(RuleBasedStateMachine):
    """The model: versions that went live one upon the other, for all guilds (0) and in two of them.

    At the bottom lies the base model, in a guild what is live for all.
    """

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "understudy.sqlite"
        self.store = Store.open(self.path)
        self.installed = []
        self.stacks = {guild: [None] for guild in GUILDS}
        self.rows = 0

    def teardown(self):
        self.store.close()
        self.folder.cleanup()

    @precondition(lambda self: len(self.installed) < 4)
    @rule()
    def train(self):
        jobs = self.store.jobs
        job_id = f"j{len(self.installed)}"
        job = jobs.add(
            NewTrainingJob(job_id, 0, 2, 3, TrainingRequest(job_name="j", persona="oda")), 1.0
        )
        jobs.claim(job, "token", 2.0)
        done = jobs.complete(
            job_id, "token", JobResult(adapter="a", seconds=1, scorecard=SCORECARD), 3.0
        )
        self.installed.append(done.version)

    def live(self, guild):
        return self.stacks[guild][-1] or self.stacks[0][-1]

    @rule(which=st.integers(-1, 3), guild=st.sampled_from(GUILDS))
    def promote(self, which, guild):
        version, guild = (None, 0) if which < 0 else (f"v{which + 1}", guild)
        if version is not None and version not in self.installed:
            with pytest.raises(RequestError, match="no version"):
                self.store.versions.promote("oda", version, 7, 4.0, guild_id=guild)
            return
        promotion = self.store.versions.promote("oda", version, 7, 4.0, guild_id=guild)
        assert (promotion is None) == (version == self.live(guild))
        if promotion:
            self.stacks[guild].append(version)
            self.rows += 1

    @rule(guild=st.sampled_from(GUILDS))
    def roll_back(self, guild):
        stack = self.stacks[guild]
        if len(stack) == 1:
            with pytest.raises(RequestError, match="no earlier version"):
                self.store.versions.rollback("oda", 7, 5.0, guild_id=guild)
            return
        stack.pop()
        self.rows += 1
        assert self.store.versions.rollback("oda", 7, 5.0, guild_id=guild).version == stack[-1]

    @rule()
    def restart(self):
        self.store.close()
        self.store = Store.open(self.path)

    @invariant()
    def the_top_is_live(self):
        assert [self.store.versions.live("oda", guild) for guild in GUILDS] == [
            self.live(guild) for guild in GUILDS
        ]
        own = {guild: stack[-1] for guild, stack in self.stacks.items() if guild and stack[-1]}
        assert self.store.versions.live_by_guild("oda") == own
        assert set(self.store.versions.all_live()) == {
            ("oda", it) for it in map(self.live, GUILDS) if it
        }
        assert self.store.versions.live("thrip", 0) is None
        assert [
            version.version for version in self.store.versions.installed("oda")
        ] == self.installed
        assert len(self.store.versions.history("oda")) == self.rows


TestPromotions = Promotions.TestCase
TestPromotions.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_a_rollback_of_a_rollback_goes_on_backwards(tmp_path):
    with Store.open(tmp_path / "understudy.sqlite") as store:
        for number in (1, 2):
            job = store.jobs.add(
                NewTrainingJob(f"j{number}", 1, 2, 3, TrainingRequest(job_name="j", persona="oda")),
                1.0,
            )
            store.jobs.claim(job, "token", 2.0)
            store.jobs.complete(
                job.job_id, "token", JobResult(adapter="a", seconds=1, scorecard=SCORECARD), 3.0
            )
            store.versions.promote("oda", f"v{number}", 7, 4.0, "better")
        assert [store.versions.rollback("oda", 7, 5.0).version for _ in range(2)] == ["v1", None]
        store.versions.promote("oda", "v2", 8, 6.0)
        history = store.versions.history("oda")
        assert [(row.version, row.promoted_by, row.why) for row in history] == [
            ("v1", 7, "better"),
            ("v2", 7, "better"),
            ("v1", 7, "rollback"),
            (None, 7, "rollback"),
            ("v2", 8, ""),
        ]
        (first, _) = store.versions.installed("oda")
        assert (first.version, first.job_id, first.scorecard) == ("v1", "j1", SCORECARD)


def test_a_persona_that_a_guild_owns_has_one_history(tmp_path):
    mira = f"mira{guild_suffix(5)}"
    with Store.open(tmp_path / "understudy.sqlite") as store:
        for _ in range(2):
            install(store, mira, guild=5)
        store.versions.promote(mira, "v1", 7, 2.0, guild_id=5)
        store.versions.promote(mira, "v2", 0, 3.0)
        assert store.versions.live(mira, 5) == store.versions.live(mira, 0) == "v2"
        assert store.versions.rollback(mira, 7, 4.0, guild_id=5).version == "v1"
        assert store.versions.live_by_guild(mira) == {}


def test_a_withdrawn_version_ceases_in_every_guild(tmp_path):
    with Store.open(tmp_path / "understudy.sqlite") as store:
        for _ in range(3):
            install(store)
        for at, (version, guild) in enumerate(
            [("v1", 0), ("v2", 0), ("v3", 1), ("v2", 1), ("v1", 2), ("v2", 2)]
        ):
            store.versions.promote("ballast", version, 7, float(at), guild_id=guild)
        store.versions.promote("ballast", "v3", 7, 9.0, guild_id=3)
        assert [
            it.for_guild for it in store.versions.withdraw("ballast", "v2", 10.0, "withdrawn")
        ] == [0, 1, 2]
        assert [store.versions.live("ballast", guild) for guild in range(4)] == [
            "v1",
            "v3",
            "v1",
            "v3",
        ]
        assert store.versions.live_until_withdrawn("ballast", "v2") == [0, 1, 2]
        assert store.versions.withdraw("ballast", "v2", 11.0, "again") == []
        assert store.versions.rollback("ballast", 7, 12.0, guild_id=1).version is None, (
            "v2 is skipped"
        )
        assert store.versions.live("ballast", 1) == "v1"


def test_a_guild_uses_its_own_and_the_operators_versions_and_those_that_were_live_for_all(tmp_path):
    with Store.open(tmp_path / "understudy.sqlite") as store:
        for guild in (0, 1, 2, 2):
            install(store, guild=guild)
        store.versions.promote("ballast", "v4", 0, 2.0)
        store.versions.rollback("ballast", 0, 3.0)
        usable = [
            [it.version for it in store.versions.installed("ballast", guild)]
            for guild in (None, 0, 1, 2)
        ]
        assert usable == [
            ["v1", "v2", "v3", "v4"],
            ["v1", "v4"],
            ["v1", "v2", "v4"],
            ["v1", "v3", "v4"],
        ]
        with pytest.raises(RequestError, match=r"v3 of ballast .*another server") as refused:
            store.versions.promote("ballast", "v3", 7, 4.0, guild_id=1)
        assert refused.value.advice.endswith("Installed: v1, v2, v4.")
        assert store.versions.live("ballast", 1) is None
