"""The matrix of tiny adapters: its diagonal is what the score cards say."""

import json
import shutil

import pytest

from personas.errors import RequestError
from personas.home.adapters import verify_adapter
from trainer.evaluate.loss_matrix import compute_loss_matrix, print_loss_matrix


@pytest.fixture(name="jobs")
def _jobs(two_trained):
    return two_trained


def adapters(jobs):
    return {persona: folder / "adapter" for persona, folder in jobs.items()}


def test_each_adapter_fits_its_own_persona_best(jobs, capsys):
    print_loss_matrix(adapters(jobs), jobs, as_json=True)
    matrix = json.loads(capsys.readouterr().out)
    losses = matrix["loss_matrix"]
    for persona, folder in jobs.items():
        assert losses[persona][persona] == min(losses[persona].values())
        assert losses[persona][persona] == pytest.approx(
            verify_adapter(folder / "adapter").metrics.loss_tuned, abs=1e-3
        )
    assert matrix["own_adapter_best"] == 1.0
    print_loss_matrix(adapters(jobs), jobs, as_json=False)
    assert "own adapter best: 100.0%" in capsys.readouterr().out


def test_adapters_and_jobs_must_match(jobs):
    with pytest.raises(RequestError, match="the same personas"):
        compute_loss_matrix({"ada": jobs["ada"] / "adapter"}, jobs)


def test_jobs_for_different_precisions_are_not_compared(jobs, tmp_path):
    other = shutil.copytree(jobs["bo"], tmp_path / "bo")
    request = other / "request.json"
    request.write_text(request.read_text().replace('"float32"', '"bfloat16"'))
    with pytest.raises(RequestError, match="base models or precisions"):
        compute_loss_matrix(adapters(jobs), {**jobs, "bo": other})
