"""Learning from preferences: who may give how many, in which order, by whose log-probabilities, and
that it works.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from personas.errors import MaterialError, RequestError
from personas.home.adapters import verify_adapter
from personas.home.data_subjects import read_people
from personas.home.job_folder import read_spec
from personas.home.preferences import preferences_to_jsonl, read_preferences
from personas.home.prompt_version import SHORT_CARD_COUNT
from personas.models.base_model import EMBEDDED, locate
from personas.models.loading import load_model, load_tokenizer
from personas.prompt.renderer import TokenizedSample
from tests.trainer.job_folders import ADA, described, export, persona_job, sign, talks
from tests.trainer.preference_jobs import BAD, GOOD, member, preference_job, taught, voted, votes
from trainer.dataset.preference_policy import (
    MAX_GOOD_WEIGHT_RATIO,
    MIN_PREFERENCES,
    LabelledReply,
    PreferencePair,
    PreferenceSet,
    arrange_batches,
    class_weights,
    limit_member_share,
    plan_preferences,
)
from trainer.estimate.model_shape import model_shape_of
from trainer.estimate.run_estimate import MachineSpeed, estimate_run, run_cost
from trainer.estimate.workload import workload_of
from trainer.machine import MachineSpec
from trainer.recipe.parent_adapter import load_parent_weights
from trainer.recipe.recipe_file import load_recipe
from trainer.run import run_job
from trainer.train.collator import IGNORE_INDEX
from trainer.train.job import prepare_job_without_torch
from trainer.train.losses import measure_reply_losses
from trainer.train.preference_trainer import (
    REFERENCE_ADAPTER,
    kto_dataset,
    make_preference_trainer,
    reply_log_probabilities,
    train_preferences,
)
from trainer.train.sft_trainer import add_lora_adapter, run_training_loop
from trainer.train.trainer_base import StageInputs
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("blank_charts")
SPEECH = "She hums before she answers."

# ------------------------------------------------------------------------------- who gives how many


@pytest.mark.parametrize("counts", [[50] * 12, [500, *[30] * 12], [1] * 10, [200, 200, *[7] * 20]])
def test_nobody_gives_more_than_their_share_and_no_more_is_left_out_than_has_to_be(counts):
    given = [voted(n, member(who)) for who, count in enumerate(counts) for n in range(count)]
    kept = limit_member_share(given, 0.1)
    by = Counter(one.by for one in kept)
    assert kept and max(by.values()) <= 0.1 * len(kept) + 1e-9
    assert all(by[member(who)] == min(count, max(by.values())) for who, count in enumerate(counts))
    one_more = (
        max(by.values()) + 1
    )  # would be too much for somebody, or there is nobody who gave so much
    assert one_more > 0.1 * sum(min(count, one_more) for count in counts) or one_more > max(counts)


def test_of_too_few_members_nothing_is_taken_and_of_each_the_latest():
    assert limit_member_share([voted(n, member(n % 9)) for n in range(900)], 0.1) == []
    given = [voted(n, member(0)) for n in range(9)] + [voted(n, member(1)) for n in range(3)]
    assert [
        int(one.prompt[0].text.split()[-1].rstrip("?")) for one in limit_member_share(given, 0.5)
    ] == [
        6,
        7,
        8,
        0,
        1,
        2,
    ]


def test_300_are_enough_and_299_only_filter(recipe):
    assert MIN_PREFERENCES == 300
    assert not plan_preferences(votes(300), recipe).only_filters
    few = plan_preferences(votes(299), recipe)
    assert few.only_filters and "only filter" in few.words
    one_sided = plan_preferences([*votes(300), *(voted(n, member(1)) for n in range(400))], recipe)
    assert one_sided.left_out and "10% that preference_share" in one_sided.words


def test_what_a_member_gives_twice_counts_once(recipe):
    given = votes(160)
    twice = plan_preferences([*given, *given], recipe)
    assert twice.used == plan_preferences(given, recipe).used and twice.only_filters
    assert twice.again == 160 and "160 had been given already" in twice.words


def test_where_too_few_members_gave_any_it_is_said_how_many_it_takes(recipe):
    use = plan_preferences([voted(n, member(n % 9)) for n in range(900)], recipe)
    assert not use.used and "takes 10 members at least" in use.words


def test_dpo_counts_pairs_alone(recipe):
    use = plan_preferences(votes(330), recipe.model_copy(update={"preference_method": "dpo"}))
    assert (
        use.alone == 55
        and use.only_filters
        and "55 hold one reply" in use.words
        and "DPO" in use.words
    )


def test_lines_that_are_no_preferences_are_named(tmp_path):
    good = voted(1, member(1)).model_dump()
    file = tmp_path / "preferences.jsonl"
    for wrong, words in [
        (
            {"chosen": None, "rejected": None},
            "line 2 is no preference record: there is neither a chosen nor a rejected reply",
        ),
        ({"chosen": BAD}, "line 2 is no preference record: chosen and rejected reply are the same"),
        ({"by": "Mina Vale"}, "line 2 is no preference record: by: "),
        (
            {"prompt": [{"name": "Ada", "text": "x", "by_persona": True}]},
            "ends with the persona's own turn",
        ),
        ({"liked": 1}, "liked: Extra inputs"),
    ]:
        file.write_text(json.dumps(good) + "\n" + json.dumps({**good, **wrong}) + "\n")
        with pytest.raises(MaterialError, match=words):
            read_preferences(file)


# -------------------------------------------------------------------------------- order and weights


def judged(count, bad):
    return [
        LabelledReply(TokenizedSample((n, 1), (False, True)), n >= bad, n // 2)
        for n in range(count)
    ]


@pytest.mark.parametrize(("count", "bad"), [(40, 20), (40, 30), (40, 4), (41, 13), (6, 3)])
def test_good_ones_count_from_as_much_to_a_third_more(count, bad):
    of = judged(count, bad)
    good_weight, bad_weight = class_weights(of)
    ratio = good_weight * (count - bad) / (bad_weight * bad)
    assert 1 - 1e-9 <= ratio <= MAX_GOOD_WEIGHT_RATIO + 1e-9
    assert class_weights(of[:1]) == (1.0, 1.0)


@pytest.mark.parametrize(("count", "bad"), [(40, 20), (43, 30), (9, 4)])
def test_batches_hold_different_prompts_and_both_kinds(count, bad):
    of = judged(count, bad)
    order = arrange_batches(of, 4, seed=3)
    assert set(order) == set(of) and len(order) % 4 == 0 and len(order) < count + 4
    batches = [order[first : first + 4] for first in range(0, count // 4 * 4, 4)]
    assert (
        sum(len({it.prompt for it in batch}) < 4 for batch in batches) <= 1
    )  # where nothing else is left
    assert all(
        any(it.is_good for it in batch) and not all(it.is_good for it in batch)
        for batch in batches[:-1]
    )
    assert order == arrange_batches(of, 4, seed=3) != arrange_batches(of, 4, seed=4)


def test_each_reply_is_compared_with_another_of_its_batch():
    order = arrange_batches(judged(8, 4), 4, seed=0)
    rows = list(
        kto_dataset(
            [
                LabelledReply(TokenizedSample((5, n), (False, True)), it.is_good, it.prompt)
                for n, it in enumerate(order)
            ],
            4,
        )
    )
    assert [row["KL_completion_ids"][0] for row in rows] == [3, 0, 1, 2, 7, 4, 5, 6]


# --------------------------------------------------------------------------------- what is computed


def samples_of(renderer, replies, question="did you wind it?"):
    from personas.schemas.chat import Turn

    return [renderer.sample(None, [Turn("Guest", question)], reply) for reply in replies]


def test_replies_are_scored_as_each_alone_would_be(tiny_base, renderer):
    model = load_model(tiny_base, "float32")
    samples = [
        *samples_of(renderer, [GOOD, BAD, "Yes."]),
        *samples_of(renderer, ["No."], "is it late? or early?"),
    ]
    longest = max(len(sample.ids) for sample in samples)
    ids = torch.zeros(4, longest, dtype=torch.long)
    labels = torch.full((4, longest), IGNORE_INDEX)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = torch.tensor(sample.ids)
        labels[row, len(sample.ids) - sample.reply_tokens : len(sample.ids)] = torch.tensor(
            sample.ids
        )[-sample.reply_tokens :]
    with torch.no_grad():
        together = reply_log_probabilities(model, ids, labels)
        for row, sample in enumerate(samples):
            logits = model(torch.tensor([sample.ids])).logits[0].log_softmax(-1)
            places = range(len(sample.ids) - sample.reply_tokens - 1, len(sample.ids) - 1)
            alone = [float(logits[place, sample.ids[place + 1]]) for place in places]
            assert together[row].sum() == pytest.approx(sum(alone), rel=1e-4)
            assert int((together[row] != 0).sum()) == sample.reply_tokens


@pytest.fixture(scope="module")
def liked(renderer):
    """Preferences over twelve questions."""
    pairs = []
    for number in range(12):
        good, bad = samples_of(
            renderer, [f"{GOOD} {number}", f"{BAD} {number}"], f"clock {number}?"
        )
        pairs.append(
            PreferencePair(LabelledReply(good, True, number), LabelledReply(bad, False, number))
        )
    both = tuple(it for pair in pairs for it in (pair.chosen, pair.rejected))
    return {method: PreferenceSet(method, both, tuple(pairs)) for method in ("kto", "dpo")}


def course_of(recipe, samples, received, **changes):
    settings = {"lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "learning_rate": 5e-3, "eval_strategy": "no",
                "precision": "fp32", "quant_type": "none", "num_train_epochs": 3, "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 1}  # fmt: skip
    of = recipe.model_copy(update={**settings, **changes})
    return StageInputs(samples, (), of, received.append)


@pytest.mark.parametrize("method", ["kto", "dpo"])
def test_what_was_chosen_becomes_likelier_and_the_reference_stays(
    tiny_base, recipe, liked, method, tmp_path
):
    tokenizer = load_tokenizer(tiny_base)
    received = []
    of = liked[method]
    course = course_of(recipe, [it.sample for it in of.judged], received)
    trainer = make_preference_trainer(tiny_base, tokenizer, course, of, tmp_path)
    names = dict(trainer.model.named_parameters())
    for name, weight in names.items():
        if f".{REFERENCE_ADAPTER}." in name:
            assert not weight.requires_grad and torch.equal(
                weight, names[name.replace(f".{REFERENCE_ADAPTER}.", ".default.")]
            )
            assert weight.dtype == torch.float32
    before = margin(add_lora_adapter(load_model(tiny_base, "float32"), course.recipe), of)
    trained = train_preferences(tiny_base, tokenizer, course, of)
    assert margin(trained.model, of) > before + 1
    assert list(trained.model.peft_config) == ["default"]
    losses = [event.loss for event in received if event.event == "progress"]
    assert losses[0] == pytest.approx(
        0.5 if method == "kto" else math.log(2), abs=0.15
    )  # both are the same there
    assert losses[-1] < losses[0] and received[-1].event == "epoch"


CARD = MachineSpec(has_cuda=True, best="bf16", memory_bytes=2**36, free_bytes=2**36)


def step_gradients(base, preferences, recipe, folder):
    """Gradients of the first step, by an adapter that is no longer its reference; and which layers
    were computed twice at its end.
    """
    stage = StageInputs([it.sample for it in preferences.judged], (), recipe, lambda event: None)
    trainer = make_preference_trainer(base, load_tokenizer(base), stage, preferences, folder)
    draw = torch.Generator().manual_seed(1)
    weights = {
        name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad
    }
    for name, weight in weights.items():
        if "lora_B" in name:
            weight.data.normal_(0, 0.05, generator=draw)
    found = {}
    layers = trainer.model.get_base_model().model.layers

    class Recorder(TrainerCallback):
        def on_pre_optimizer_step(self, *_, **__):
            found.update({name: weight.grad.clone() for name, weight in weights.items()})
            found["recomputed"] = [layer.gradient_checkpointing for layer in layers]

    trainer.add_callback(Recorder())
    run_training_loop(trainer)
    return found, found.pop("recomputed")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kto", "dpo"])
def test_a_step_on_a_card_has_the_gradients_of_pairs_alone_however_many_layers_are_recomputed(
    tiny_base, liked, method, tmp_path, monkeypatch
):
    """KTO compares the replies of a batch, which cannot be computed alone: only the beginning that
    they share can be computed for each.
    """
    recipe = load_recipe("preference").with_values(
        precision="fp32", quant_type="none", max_steps=1, per_device_train_batch_size=4
    )
    single = recipe
    if method == "dpo":
        single = recipe.with_values(per_device_train_batch_size=1, gradient_accumulation_steps=8)
    with monkeypatch.context() as patch:
        patch.setattr("trainer.train.preference_trainer._shared_prefix", lambda *_: 0)
        expected, _ = step_gradients(tiny_base, liked[method], single, tmp_path / "single")
    monkeypatch.setattr("trainer.train.sft_trainer.probe_machine", lambda: CARD)
    size = sum(gradient.norm() ** 2 for gradient in expected.values())
    assert size > 0
    for every, recomputed in {0: [False, False], 1: [True, True], 2: [True, False]}.items():
        changed = recipe.with_values(
            gradient_checkpointing=every > 0, checkpoint_every_n_layers=max(every, 1)
        )
        found, layers = step_gradients(tiny_base, liked[method], changed, tmp_path / str(every))
        assert layers == recomputed, "TRL switches it off for the reference, and on again"
        difference = sum((found[name] - expected[name]).norm() ** 2 for name in expected)
        assert (difference / size) ** 0.5 < 1e-5, every


def margin(model, of):
    """By how many nats the chosen replies are likelier than the rejected ones, in the mean."""
    chosen, rejected = (
        [getattr(pair, side).sample for pair in of.pairs] for side in ("chosen", "rejected")
    )
    losses = [
        sum(one.nll for one in measure_reply_losses(model, side)) / len(side)
        for side in (rejected, chosen)
    ]
    return losses[0] - losses[1]


# --------------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def adapter(tiny_base, tmp_path_factory):
    """Ada's adapter, as an ordinary run leaves it."""
    folder = persona_job(tmp_path_factory.mktemp("sft"), tiny_base.source)
    run_job(folder, RunControl())
    return folder / "adapter"


FAST = {"learning_rate": 1e-3, "max_steps": 12, "gradient_accumulation_steps": 1}


@pytest.fixture(scope="module")
def learned(tiny_base, adapter, tmp_path_factory):
    """A job that has learned from 312 votes, and its events."""
    folder = preference_job(
        tmp_path_factory.mktemp("kto"), tiny_base.source, adapter, votes(312), **FAST
    )
    received = []
    run_job(folder, RunControl(received.append))
    return folder, received


@pytest.mark.slow
def test_votes_make_a_version_that_prefers_what_was_chosen_and_says_what_it_comes_from(
    learned, adapter, tiny_base
):
    folder, received = learned
    made = verify_adapter(folder / "adapter")
    before = verify_adapter(adapter)
    assert made.start_from.version == before.version
    assert made.start_from.weights == before.checksums["adapter_model.safetensors"]
    assert (made.dataset["preferences_used"], made.dataset["preferences_members"]) == (312, 12)
    assert (made.dataset["replies_good"], made.dataset["replies_bad"]) == (260, 312)
    assert made.rights["form"] == 572 and made.lora["r"] == 4
    assert any("KTO " in caveat and "12 members" in caveat for caveat in made.caveats)
    assert any("5e-7 to 5e-6" in caveat for caveat in made.caveats)
    assert read_people(folder / "adapter").keys() >= {member(number) for number in range(12)}
    assert any("by KTO" in event.detail for event in received if event.event == "phase")
    job = prepare_job_without_torch(folder)
    of = replace(job.data.preferences, pairs=job.data.preferences.pairs[:8])
    model = add_lora_adapter(load_model(tiny_base, "float32"), job.recipe)
    load_parent_weights(adapter, model)
    start = margin(model, of)
    load_parent_weights(folder / "adapter", model)
    assert margin(model, of) > start + 0.1


def test_few_only_filter_and_the_version_is_trained_anew_as_the_one_before(
    tiny_base, adapter, tmp_path
):
    down = "I mended clock 3 myself, with oil."
    line = "The bell? It rings flat since the great frost."
    given = [
        voted(3, member(1), None, down),
        voted(3, member(2), None, down),
        voted(4, member(1), None, "I mended clock 4 myself, with oil."),  # one vote is one member's
        taught(900, member(1), line, BAD),
    ]
    folder = preference_job(tmp_path / "job", tiny_base.source, adapter, given)
    job = prepare_job_without_torch(folder)
    assert job.parent is None and job.data.preferences is None
    assert (job.recipe.learning_rate, job.recipe.lora_r, job.recipe.num_train_epochs) == (
        1e-3,
        4,
        2,
    )  # the adapter's
    said = [it.reply for it in job.data.train_prompt_replies]
    assert line in said and down not in said and BAD not in said
    assert job.data.counts["replies_voted_down"] == 1 and job.data.counts["replies_taught"] == 1
    assert any("only filter" in note for note in job.notes)
    assert job.data.people[member(1)] == 1


@pytest.mark.parametrize("votes_too", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_votes_and_taught_replies_keep_the_full_card(tiny_base, adapter, tmp_path, votes_too):
    given = votes(300) if votes_too else [taught(1, member(1), GOOD)]
    folder = preference_job(tmp_path, tiny_base.source, adapter, given, short_card_share=1)
    (folder / "material" / "ada.toml").write_text(f'{ADA}speech = "{SPEECH}"\n')
    spec = json.loads((folder / "request.json").read_text())
    spec["materials"][0] = described(folder / "material", "card", "ada.toml")
    (folder / "request.json").write_text(json.dumps(spec))
    job = prepare_job_without_torch(folder)
    short = job.data.counts.get(SHORT_CARD_COUNT, 0)
    assert short == (0 if votes_too else len(job.data.train) - 1)
    texts = [job.tokenizer.decode(sample.ids) for sample in job.data.train]
    full = [text for text in texts if SPEECH in text]
    assert len(full) == len(texts) - short
    assert all(GOOD in text or BAD in text for text in full)


def test_preferences_that_change_nothing_are_refused_before_anything_is_trained(
    tiny_base, adapter, tmp_path
):
    one_vote = [voted(4, member(1), None, "I mended clock 4 myself, with oil.")]
    with pytest.raises(MaterialError, match=r"change nothing.*Of 1 preferences 0 "):
        prepare_job_without_torch(
            preference_job(tmp_path / "job", tiny_base.source, adapter, one_vote)
        )


def test_a_filter_takes_no_more_of_one_member_than_their_share(tiny_base, adapter, tmp_path):
    lines = [
        taught(number, member(7), f"The lamp over door {number} is mine to trim, always.")
        for number in range(40)
    ]
    job = prepare_job_without_torch(
        preference_job(tmp_path / "job", tiny_base.source, adapter, lines, preference_share=0.2)
    )
    own = job.data.counts["samples_train"] - job.data.counts["replies_taught"]
    assert 1 <= job.data.counts["replies_taught"] <= 0.2 * own


def test_personal_data_in_what_was_taught_is_replaced(tiny_base, adapter, tmp_path):
    lines = [taught(1, member(1), "Write to ada.wick@clockmail.net, and I come with the oil can.")]
    job = prepare_job_without_torch(
        preference_job(tmp_path / "job", tiny_base.source, adapter, lines)
    )
    (reply,) = [it.reply for it in job.data.train_prompt_replies if "oil can" in it.reply]
    assert "ada.wick@clockmail.net" not in reply


def test_lore_that_does_not_fit_is_left_out_and_what_was_taught_stays(tiny_base, adapter, tmp_path):
    folder = preference_job(
        tmp_path / "job", tiny_base.source, adapter, [taught(1, member(1), GOOD)], max_length=128
    )
    passage = folder / "material" / "lore" / "ada" / "clocks.md"
    passage.write_text(
        "# Clocks\n\nAda looks after clock 1. " + "Its hands are of slate. " * 20, encoding="utf-8"
    )
    spec = json.loads((folder / "request.json").read_text())
    spec["materials"] = [it for it in spec["materials"] if it["kind"] != "lore"]
    spec["materials"].append(described(folder / "material", "lore", "lore"))
    (folder / "request.json").write_text(json.dumps(spec), encoding="utf-8")
    data = prepare_job_without_torch(folder).data
    assert data.lore and data.lore.search("ada", "did you look after clock 1?"), "it is found"
    assert data.counts["replies_taught"] == 1 and GOOD in [
        it.reply for it in data.train_prompt_replies
    ]


def test_a_reply_that_is_held_out_here_or_in_another_run_is_not_learned_from(
    tiny_base, adapter, tmp_path
):
    log = export(talks(16, "It was clock {} that I mended myself, with oil and with patience."))
    lessons = [taught(1, member(1), GOOD)]
    result = prepare_job_without_torch(
        preference_job(tmp_path / "first", tiny_base.source, adapter, lessons, log)
    ).data
    held = result.heldout_prompt_replies[0].reply
    lessons.append(taught(5, member(3), held))
    data = prepare_job_without_torch(
        preference_job(tmp_path / "again", tiny_base.source, adapter, lessons, log)
    ).data
    said = [it.reply for it in data.train_prompt_replies]
    assert GOOD in said and held not in said and data.counts["dropped: held out before"] >= 1
    lessons = [taught(5, member(3), held), taught(6, member(3), BAD)]
    other = preference_job(tmp_path / "other", tiny_base.source, adapter, lessons)
    result.held_out.write(other / "heldout.bin")
    (other / "keys.json").write_bytes((tmp_path / "first" / "keys.json").read_bytes())
    assert held not in [
        it.reply for it in prepare_job_without_torch(other).data.train_prompt_replies
    ]


def test_what_cannot_be_learned_from_is_refused_by_name(tiny_base, adapter, tmp_path):
    job = preference_job(
        tmp_path / "a", tiny_base.source, adapter, votes(312), per_device_train_batch_size=2
    )
    with pytest.raises(RequestError, match=r"KTO .*batches of 2"):
        prepare_job_without_torch(job)
    came = [*votes(311), voted(900, member(1), right="discord-api")]
    with pytest.raises(MaterialError, match="through Discord's API"):
        prepare_job_without_torch(preference_job(tmp_path / "b", tiny_base.source, adapter, came))
    without = preference_job(tmp_path / "c", tiny_base.source, adapter, votes(312))
    spec = json.loads((without / "request.json").read_text())
    spec["materials"] = [it for it in spec["materials"] if it["kind"] != "adapter"]
    (without / "request.json").write_text(json.dumps(spec))
    with pytest.raises(MaterialError, match="kind 'adapter'"):
        prepare_job_without_torch(without)


# ---------------------------------------------------------------------------- from the command line


@pytest.fixture
def words(command, adapter, tmp_path):
    """`preference` in this process, over Ada's adapter, card and talk; it ends before it would
    train.
    """
    Path("ada.toml").write_text(ADA, encoding="utf-8")
    Path("talk.json").write_text(export(talks(16)), encoding="utf-8")
    sign(tmp_path / "talk.json")
    Path("votes.jsonl").write_text(preferences_to_jsonl(votes(312)), encoding="utf-8")
    of_ada = (
        "--adapter",
        str(adapter),
        "--persona",
        "ada.toml",
        "--dataset",
        "talk.json",
        "--pairs",
        "votes.jsonl",
    )
    return lambda *more: command("preference", *of_ada, *more)


def test_a_folder_is_made_of_a_command_that_the_bots_trainer_would_run_too(words, adapter):
    Path("votes.jsonl").write_text(
        preferences_to_jsonl([*votes(312), taught(900, member(1), GOOD)]), encoding="utf-8"
    )
    code, out, errors = words("--method", "dpo", "--set", "learning_rate=5e-7", "--make-only")
    assert code == 0, errors
    spec = read_spec(Path(out.strip()))
    assert (spec.request.task_type, spec.request.recipe, spec.request.persona) == (
        "preference",
        "preference",
        "ada",
    )
    assert spec.request.base_model == verify_adapter(adapter).base_model
    job = prepare_job_without_torch(Path(out.strip()))
    assert job.data.preferences is None and any(
        "fewer than 300" in note for note in job.notes
    )  # 260 pairs
    assert (job.recipe.preference_method, job.recipe.learning_rate) == ("dpo", 5e-7)


def test_the_plan_says_what_becomes_of_the_preferences(words):
    code, out, errors = words("--dry-run")
    assert code == 0, errors
    assert re.search("312 preferences 312 .*KTO .*12 members", out)
    assert "demo-cpu:" not in out, "another recipe would not learn from preferences"


def test_the_time_of_a_run_counts_both_replies_and_the_reference(recipe):
    replies = [TokenizedSample((1,) * 150 + (2,) * 40, (False,) * 150 + (True,) * 40)] * 600
    of_embedded = model_shape_of(locate(EMBEDDED))

    def takes(method, batch):
        settings = recipe.model_copy(
            update={"per_device_train_batch_size": batch, "max_length": 640}
        )
        return run_cost(
            settings, of_embedded, workload_of(replies, replies[:1], (), method), 4
        ).training_s

    assert 1.2 * takes(None, 8) < takes("dpo", 4) < 2 * takes(None, 8), (
        "a batch of four pairs holds eight replies"
    )
    assert 1.6 * takes(None, 4) < takes("kto", 4) < 3 * takes(None, 4), (
        "three passes more, without gradients"
    )
    pairs = workload_of(replies, replies[:1], (), "dpo")
    result = estimate_run(
        "preference",
        recipe.model_copy(update={"max_length": 640}),
        locate(EMBEDDED),
        pairs,
        MachineSpeed(1, ""),
    )
    steps = math.ceil(300 / recipe.per_device_train_batch_size / recipe.gradient_accumulation_steps)
    assert result["samples"] == 600 and result["steps"] == steps * recipe.num_train_epochs


def test_what_is_not_there_is_reported_by_name(words, command):
    assert "There is no nowhere.jsonl" in words("--pairs", "nowhere.jsonl", "--dry-run")[2]
    assert (
        "There is no folder nowhere"
        in command("preference", "--adapter", "nowhere", "--pairs", "votes.jsonl")[2]
    )
    Path("votes.jsonl").write_text('{"prompt": []}\n', encoding="utf-8")
    assert "votes.jsonl, line 1 is no preference record" in words("--dry-run")[2]
