"""Which version is live, for any sequence of trainings, promotions and rollbacks: compared with a plain stack."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bot.store import JobResult, Store
from bot.store.training_jobs import NewTrainingJob
from personas.errors import RequestError
from personas.schemas.training import TrainingRequest
from tests.samples import SCORECARD


class Promotions(RuleBasedStateMachine):
    """The model: versions that went live one upon the other; the base model lies at the bottom."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "understudy.sqlite"
        self.store = Store.open(self.path)
        self.installed = []
        self.stack = [None]
        self.rows = 0

    def teardown(self):
        self.store.close()
        self.folder.cleanup()

    @precondition(lambda self: len(self.installed) < 4)
    @rule()
    def train(self):
        jobs, job_id = self.store.jobs, f"j{len(self.installed)}"
        job = jobs.add(NewTrainingJob(job_id, 1, 2, 3, TrainingRequest(job_name="j", persona="oda")), 1.0)
        jobs.claim(job, "token", 2.0)
        done = jobs.complete(job_id, "token", JobResult(adapter="a", seconds=1, scorecard=SCORECARD), 3.0)
        self.installed.append(done.version)

    @rule(which=st.integers(-1, 3))
    def promote(self, which):
        version = None if which < 0 else f"v{which + 1}"
        if version is not None and version not in self.installed:
            with pytest.raises(RequestError, match="no version"):
                self.store.versions.promote("oda", version, 7, 4.0)
            return
        promotion = self.store.versions.promote("oda", version, 7, 4.0)
        assert (promotion is None) == (version == self.stack[-1])
        if promotion:
            self.stack.append(version)
            self.rows += 1

    @rule()
    def roll_back(self):
        if len(self.stack) == 1:
            with pytest.raises(RequestError, match="no earlier version"):
                self.store.versions.rollback("oda", 7, 5.0)
            return
        self.stack.pop()
        self.rows += 1
        assert self.store.versions.rollback("oda", 7, 5.0).version == self.stack[-1]

    @rule()
    def restart(self):
        self.store.close()
        self.store = Store.open(self.path)

    @invariant()
    def the_top_is_live(self):
        assert self.store.versions.live("oda") == self.stack[-1]
        assert self.store.versions.live("thrip") is None
        assert [version.version for version in self.store.versions.installed("oda")] == self.installed
        assert len(self.store.versions.history("oda")) == self.rows


TestPromotions = Promotions.TestCase
TestPromotions.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_a_rollback_of_a_rollback_goes_on_backwards(tmp_path):
    with Store.open(tmp_path / "understudy.sqlite") as store:
        for number in (1, 2):
            job = store.jobs.add(
                NewTrainingJob(f"j{number}", 1, 2, 3, TrainingRequest(job_name="j", persona="oda")), 1.0
            )
            store.jobs.claim(job, "token", 2.0)
            store.jobs.complete(job.job_id, "token", JobResult(adapter="a", seconds=1, scorecard=SCORECARD), 3.0)
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
