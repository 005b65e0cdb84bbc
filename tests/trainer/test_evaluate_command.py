"""`python -m trainer evaluate` on a tiny adapter, in this process."""

import argparse
import json
import shutil

import pytest

from personas.home.adapters import verify_adapter, write_manifest
from personas.home.comparison_targets import COMPARE_FILE
from personas.schemas.scorecard import ScoreCard
from trainer.cli.error_handling import with_error_handling
from trainer.cli.evaluate_command import add_evaluate, evaluate


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """The command: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        parser = argparse.ArgumentParser()
        add_evaluate(parser.add_subparsers())
        code = with_error_handling(evaluate)(parser.parse_args(["evaluate", *map(str, words)]))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.mark.slow
def test_a_quick_card_has_all_sections_as_json_and_for_people(run, two_trained, tmp_path):
    adapter = two_trained["ada"] / "adapter"
    bo = two_trained["bo"]
    neighbour = f"bo={bo / 'adapter'},{bo}"
    code, out, err = run(
        "--adapter", adapter, "--against", bo / "adapter", "--neighbour", neighbour, "--quick", "--json"
    )  # fmt: skip
    assert code == 0, err
    card = ScoreCard.model_validate_json(out)
    written = tmp_path / "build" / "evaluate" / "ada-v1"
    assert card == ScoreCard.model_validate_json((written / "scorecard.json").read_bytes())
    assert card.quick and set(card.heldout.loss) == {"base", "live", "new"}
    assert (
        card.separation.own_best == 1
        and card.memorised
        and card.voice
        and card.side_by_side
        and card.replies
    )
    assert card.general.instruction_replies > 0 and card.base_is_base == 0
    for reply in card.side_by_side[0].replies.values():
        assert reply.made_by is None or reply.made_by in card.adapters.values()
    assert card.verdict and card.verdict.reasons and card.learned.course
    assert card.learned.replies == verify_adapter(adapter).dataset["samples_train"]
    report = {path.name for path in (written / "report").iterdir()}
    assert report == {"scorecard.png", "rubric.md", "rubric.csv", "rubric-key.json"}
    result = (written / "scorecard.md").read_text()
    assert all(
        f"## {name}" in result
        for name in ("Held-out replies", "Separation", "Voice", "General ability")
    )
    assert "held-out replies" in err and str(written) in err
    assert not (adapter / COMPARE_FILE).exists()


@pytest.mark.parametrize(
    ("field", "name", "said"),
    [
        ("version", "/../../../x", "The name of the adapter's version"),
        ("job_id", "../../elsewhere", "The name of the adapter's job"),
    ],
)
def test_names_in_an_adapter_lead_to_no_other_folder(run, two_trained, tmp_path, field, name, said):
    adapter = tmp_path / "foreign" / "adapter"
    shutil.copytree(two_trained["ada"] / "adapter", adapter)
    manifest = verify_adapter(adapter)
    write_manifest(adapter, manifest.model_copy(update={field: name}))
    job = [] if field == "job_id" else ["--job", two_trained["ada"]]
    code, out, err = run("--adapter", adapter, *job)
    assert code == 1 and said in err and out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--adapter", "nowhere"], "There is no complete adapter"),
        (["--adapter", "ADA", "--job", "nowhere"], "no folder of the job job-1"),
        (["--adapter", "ADA", "--out", "/proc/card"], "cannot be written"),
        (["--adapter", "ADA", "--against", "nowhere"], "no complete adapter in nowhere"),
        (
            ["--adapter", "ADA", "--neighbour", "bo=/nowhere,/nowhere"],
            "no complete adapter in /nowhere",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused_with_a_reason(run, two_trained, words, said):
    code, out, err = run(
        *(two_trained["ada"] / "adapter" if word == "ADA" else word for word in words)
    )
    assert code == 1 and said in err and not out


def test_the_job_of_another_persona_is_refused(run, two_trained, tmp_path):
    folder = shutil.copytree(two_trained["bo"], tmp_path / "bo")
    spec = json.loads((folder / "request.json").read_text())
    spec["request"]["persona"] = "bo"
    (folder / "request.json").write_text(json.dumps(spec))
    code, _, err = run("--adapter", two_trained["ada"] / "adapter", "--job", folder)
    assert code == 1 and "a job for bo" in err and "ada's" in err


def test_another_job_of_the_persona_is_refused_as_its_held_out_data_may_have_been_trained_on(
    run, two_trained, tmp_path
):
    folder = shutil.copytree(two_trained["ada"], tmp_path / "ada")
    spec = json.loads((folder / "request.json").read_text())
    (folder / "request.json").write_text(json.dumps({**spec, "job_id": "job-9"}))
    code, _, err = run("--adapter", two_trained["ada"] / "adapter", "--job", folder)
    assert code == 1 and "job-9" in err and "job-1 trained the adapter" in err


def test_a_neighbour_without_a_job_is_wrong_usage(run, capsys):
    with pytest.raises(SystemExit) as wrong:
        run("--adapter", ".", "--neighbour", "oda")
    assert wrong.value.code == 2
    assert "expected PERSONA=ADAPTER,JOB" in capsys.readouterr().err
