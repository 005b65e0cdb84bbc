"""`study quality`: points are kept and resumed, settings compared in pairs, and certain differences
named.
"""

import json
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from personas.engine.sequence import Sequence
from personas.errors import RequestError
from personas.home.job_folder import read_spec
from personas.schemas.chat import SamplingParams
from personas.schemas.scorecard import (
    IN_CHARACTER,
    LORE_FOUND,
    LORE_RIGHT,
    MASKED_VOICE,
    SENSE_ESTIMATE,
    VOICE,
    VOICE_AT_TURN,
)
from trainer.evaluate.candidates import Candidate
from trainer.evaluate.generation import talks
from trainer.evaluate.generation.reply_tasks import ReplyValue
from trainer.study import quality_meter
from trainer.study.quality import (
    ENDED,
    QUALITY_RESULTS_FOLDER,
    SERVED,
    QualityPoint,
    QualityResult,
    lock_study,
    quality_points,
    read_quality_result,
    run_quality_study,
)
from trainer.study.quality_meter import QualityMeter, measure_versions, study_key
from trainer.study.quality_report import (
    QUALITY_FILE,
    compare_settings,
    quality_markdown,
    write_quality,
)
from trainer.train.job import prepare_job

COLD = "temperature=0.3"


def result(settings, seed=0, sense=lambda n: float(n % 2), key="k", ceiling=0.9):
    """Forty replies of forty conversations; the voice is alike for all settings."""

    def values(value):
        return [ReplyValue(f"talk {n}", "heldout", n, seed, value(n)) for n in range(40)]

    found = {
        SENSE_ESTIMATE: values(sense),
        VOICE: values(lambda n: float(n % 4 > 0)),
        LORE_FOUND: values(lambda n: 1.0),
    }
    bounds = {SENSE_ESTIMATE: ceiling}, {SENSE_ESTIMATE: 0.1}
    return QualityResult(
        key, settings, seed, 60.0, found, *bounds, {"talks": "no time"}, tokens=50.0
    )


def test_points_are_the_served_settings_and_those_tried_a_seed_of_each_first():
    points = quality_points(["temperature = 0.30", "min_p=0.05,temperature=1", COLD], 2)
    assert [(it.settings, it.seed) for it in points] == [
        (settings, seed)
        for seed in (0, 1)
        for settings in (SERVED, COLD, "min_p=0.05,temperature=1")
    ]
    served = SamplingParams(temperature=0.8, top_p=0.7)
    assert points[0].sampling(served) == served
    assert points[1].sampling(served) == replace(served, temperature=0.3)
    assert quality_points(["top_k=40"], 1)[1].sampling(served).top_k == 40


@pytest.mark.parametrize(
    "text",
    [
        *("temprature=0.3", "temperature", "temperature=warm", "stop_loops=1", "seed=3", ""),
        *(
            "candidates=0",
            "candidates=64",
            "temperature=nan",
            "top_p=0",
            "repetition_penalty=0",
            "max_new_tokens=1000000",
        ),
    ],
)
def test_what_is_no_setting_of_sampling_is_refused_by_name(text):
    with pytest.raises(RequestError, match="is no setting of sampling") as refused:
        quality_points([text], 1)
    assert (
        "repetition_penalty from 1 to 2" in refused.value.advice
        and "seed" not in refused.value.advice
    )
    assert quality_points([SERVED], 1) == [QualityPoint(SERVED, 0)]
    with pytest.raises(RequestError, match="sets temperature twice"):
        quality_points(["temperature=0.3, temperature=0.5"], 1)


def test_a_study_goes_on_with_what_is_missing_and_can_be_extended(tmp_path):
    measured = []
    lines = []

    def measure(point):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(point.name)
        return result(point.settings, point.seed)

    points = quality_points([COLD], 2)
    with pytest.raises(KeyboardInterrupt):
        run_quality_study(tmp_path, points, "k", measure, lines.append)
    measured.append("interrupted")
    results = run_quality_study(tmp_path, points, "k", measure, lines.append)
    assert measured[3:] == [points[2].name, points[3].name] and len(results) == 4
    assert results[0] == result(SERVED) and read_quality_result(tmp_path, points[3]) == result(
        COLD, 1
    )
    assert lines[-1].startswith("4 of 4: temperature=0.3,seed=1, ")
    with pytest.raises(RequestError, match="another adapter"):
        run_quality_study(tmp_path, points, "other", measure, lines.append)
    hot = quality_points(["temperature=1"], 1)
    extended = run_quality_study(
        tmp_path, hot, "k", lambda it: result(it.settings, it.seed), lines.append
    )
    assert [it.settings for it in extended] == [SERVED, "temperature=1", COLD, COLD], (
        "what is known stays in the table"
    )


def test_two_processes_do_not_measure_in_one_folder(tmp_path):
    out = tmp_path / "study"
    with lock_study(out), pytest.raises(RequestError, match="Another process"), lock_study(out):
        pytest.fail("both are in it")
    with lock_study(out):
        assert out.is_dir()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda stored: stored | {"values": 3}, "should be an object"),
        (lambda stored: stored | {"tokens": "many"}, "should be a valid number"),
        (lambda stored: stored | {"values": {}}, "no values"),
        (lambda stored: stored | {"seconds": math.nan}, "no numbers"),
        (
            lambda stored: json.loads(json.dumps(stored).replace('"value": 1.0', '"value": NaN')),
            "no numbers",
        ),
        (lambda stored: stored | {"seed": 77}, "another seed than its name"),
        (lambda stored: stored | {"settings": COLD}, "other settings"),
        (lambda stored: "[" * 200_000, "recursion limit"),
    ],
)
def test_a_damaged_result_is_named_and_one_that_is_not_asked_for_left_out(tmp_path, change, why):
    point = QualityPoint(SERVED, 0)
    lines = []
    file = tmp_path / QUALITY_RESULTS_FOLDER / f"{point.name}.json"
    file.parent.mkdir()
    file.write_text(json.dumps(asdict(result(SERVED))))
    assert read_quality_result(tmp_path, point) == result(SERVED)
    shutil.copy(file, file.with_stem(f"{file.stem} (copy)"))
    changed = change(asdict(result(SERVED)))
    file.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(RequestError, match="is damaged") as refused:
        read_quality_result(tmp_path, point)
    assert why in refused.value.message and refused.value.message.count("\n") == 0
    cold = run_quality_study(
        tmp_path,
        [QualityPoint(COLD, 0)],
        "k",
        lambda it: result(it.settings, it.seed),
        lines.append,
    )
    assert cold == [result(COLD)] and lines[-1] == f"{refused.value.message} It is left out."


def test_a_difference_counts_only_if_its_paired_interval_excludes_zero():
    better = [result(SERVED), result(COLD, sense=lambda n: float(n % 2 or n % 5 == 0))]
    served, cold = compare_settings(better)
    assert not served.differences and [measure for measure, _ in cold.certain()] == [SENSE_ESTIMATE]
    assert (
        cold.differences[SENSE_ESTIMATE].estimate == pytest.approx(0.1)
        and cold.differences[VOICE].estimate == 0
    )
    alike = compare_settings(
        [result(SERVED), result(COLD, sense=lambda n: float((n + n // 2) % 2))]
    )[1]
    assert not list(alike.certain()), "as far apart on the whole as chance takes them"
    few = result(COLD, sense=lambda n: 1.0)
    few.values[SENSE_ESTIMATE][:] = [
        it for it in few.values[SENSE_ESTIMATE] if it.number in (0, 2, 4, 6)
    ]
    assert SENSE_ESTIMATE not in compare_settings([result(SERVED), few])[1].differences, (
        "four that are alike say nothing"
    )
    seeds = compare_settings([result(SERVED), result(SERVED, 1), result(COLD), result(COLD, 1)])[1]
    assert seeds.differences[SENSE_ESTIMATE].high == 0


def test_the_table_marks_certain_differences_and_lists_them(tmp_path):
    results = [result(SERVED), result(COLD, sense=lambda n: float(n % 2 or n % 5 == 0))]
    text = write_quality(tmp_path, "ada", results)
    assert (
        text == quality_markdown("ada", results, compare_settings(results))
        and text in (tmp_path / "quality.md").read_text()
    )
    assert f"| measure | ceiling | floor | {SERVED} | {COLD} |" in text
    assert f"| {SENSE_ESTIMATE} | 90.0% | 10.0% | 50.0% (32 to 65) | 60.0%* (45 to 75) |" in text
    assert f"| {VOICE} | – | – | 75.0% (60 to 88) | 75.0% (60 to 88) |" in text
    assert (
        "| tokens of a reply | – | – | 50.0 | 50.0 |" in text
        and "## Not measured\n\n- talks: no time" in text
    )
    assert (
        f"| {LORE_FOUND} |" in text and LORE_FOUND not in compare_settings(results)[1].differences
    )
    assert (
        f"- temperature=0.3: {SENSE_ESTIMATE} +10.0 points (" in text
        and "over 1 seed, with" in text
    )
    study = json.loads((tmp_path / QUALITY_FILE).read_text())
    assert study["rows"][1]["certain"] == [SENSE_ESTIMATE] and study["left_out"] == {
        "talks": "no time"
    }
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")
    three = [result(SERVED), result(SERVED, 1, ceiling=0.7), result(COLD, ceiling=0.1)]
    assert f"| {SENSE_ESTIMATE} | 80.0% |" in quality_markdown(
        "ada", three, compare_settings(three)
    ), "of all served seeds"
    assert "None." in quality_markdown("ada", results[:1], compare_settings(results[:1]))


@pytest.mark.slow
def test_a_point_is_measured_on_an_adapter_with_its_seed_and_settings(two_trained, monkeypatch):
    """Four tokens a reply and two turns: the replies are real ones, of a tiny model."""
    monkeypatch.setattr(talks, "TALK_TURNS", (1, 2))
    forked = []
    fork = Sequence.fork

    def counted_fork(sequence, seed):
        forked.append(sequence)  # kept, so that no other one gets its id
        return fork(sequence, seed)

    monkeypatch.setattr(Sequence, "fork", counted_fork)
    folder = two_trained["ada"]
    meter = QualityMeter(
        prepare_job(folder, read_spec(folder)), Candidate.sealed(folder / "adapter")
    )
    try:
        short = meter.measure(QualityPoint("max_new_tokens=4,candidates=1", 1))
        assert not forked
        other = meter.measure(QualityPoint("max_new_tokens=4,candidates=3", 2))
    finally:
        meter.close()
    monkeypatch.setenv("REPLY_CANDIDATES", "1")
    job = prepare_job(folder, read_spec(folder))
    adapter = Candidate.sealed(folder / "adapter")
    assert short.key == other.key != study_key(job, adapter, meter._voices), (
        "what is served has changed since"
    )
    monkeypatch.delenv("REPLY_CANDIDATES")
    assert study_key(job, adapter, meter._voices) == short.key != study_key(job, adapter, {}), (
        "or the other voices"
    )
    assert {it.seed for it in short.values[VOICE]} == {1}
    assert {it.seed for it in other.values[VOICE]} == {2}
    measures = VOICE, IN_CHARACTER, VOICE_AT_TURN.format(1), VOICE_AT_TURN.format(2)
    replies = sum(len(other.values[measure]) for measure in measures)
    forks = Counter(map(id, forked))
    assert set(forks.values()) == {2} and len(forks) >= replies, "each reply is chosen among three"
    assert short.values.keys() >= {
        VOICE,
        MASKED_VOICE,
        IN_CHARACTER,
        ENDED,
        VOICE_AT_TURN.format(1),
    }
    assert not any(it.value for it in short.values[ENDED]), "four tokens are no sentence"
    assert len(short.values[IN_CHARACTER]) == 25 and short.ceiling[VOICE] > short.floor[VOICE]
    assert ("lore" in short.left_out) != (LORE_RIGHT in short.values)


@pytest.mark.slow
def test_other_versions_are_measured_as_served_on_the_same_prompts(
    two_trained, tmp_path, monkeypatch, command
):
    """An adapter that was trained on another word stands in for a later version."""
    monkeypatch.setattr(talks, "TALK_TURNS", (1, 2))
    monkeypatch.setattr(
        quality_meter,
        "served_sampling",
        lambda base: SamplingParams(max_new_tokens=4, candidates=1),
    )
    ada, bo = (two_trained[name] / "adapter" for name in ("ada", "bo"))
    own = Candidate.sealed(ada)
    rival = Candidate.sealed(bo)
    job = prepare_job(ada.parent, read_spec(ada.parent))
    lines = []
    points = quality_points(["max_new_tokens=2"], 1)
    results = measure_versions(tmp_path, points, job, own, [rival], lines.append)
    named = f"{rival.version} ({rival.stamp.weights[:8]})"
    assert [it.settings for it in results] == [SERVED, "max_new_tokens=2", named] and results[
        2
    ].key != results[0].key
    prompts = [[(it.unit, it.number, it.seed) for it in of.values[MASKED_VOICE]] for of in results]
    assert (
        prompts[0] == prompts[2]
        and results[0].values[MASKED_VOICE] != results[2].values[MASKED_VOICE]
    )
    assert lines[-1] == f"{named}: 1 of 1: as served,seed=0"
    assert (
        measure_versions(tmp_path, points, job, own, [rival], lines.append) == results
        and len(lines) == 3
    )
    other = shutil.copytree(bo, tmp_path / "other") / "manifest.json"
    other.write_text(json.dumps({**json.loads(other.read_text()), "persona": "bo"}))
    code, _, said = command(
        "study", "quality", "--adapter", str(ada), "--against", "other", "--out", "study"
    )
    assert code == 1 and "is bo's." in said and "ada's" in said


@pytest.mark.parametrize("runs", ["0", "1001", "1000000000", "two"])
def test_the_number_of_runs_is_bounded(command, capsys, runs):
    with pytest.raises(SystemExit):
        command("study", "quality", "--adapter", "v1", "--runs", runs)
    assert f"1 to 1000 runs, got '{runs}'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_prints_a_table_and_resumes(two_trained, tmp_path):
    short = f"max_new_tokens=8,{COLD}"
    words = [sys.executable, "-m", "trainer", "study", "quality", "--adapter", str(two_trained["ada"] / "adapter"),
             "--try", short, "--runs", "1", "--out", "study", "--threads", "1"]  # fmt: skip
    environ = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "UNDERSTUDY_HOME": str(tmp_path / "home"),
    }
    done = subprocess.run(
        words, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    assert (
        "# Quality: ada" in done.stdout
        and f"| {short} |" in done.stdout
        and "1 of 2: as served" in done.stderr
    )
    again = subprocess.run(
        [*words, "--json"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    assert json.loads(again.stdout)["rows"][1]["settings"] == short and "1 of 2" not in again.stderr
