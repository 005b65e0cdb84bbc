"""What a score card measures of losses, on tiny adapters that are trained for real."""

import math
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from personas.engine.peft_runner import PeftSwitcher
from personas.home.adapters import verify_adapter
from personas.home.comparison_targets import ComparisonTargets, NeighbourPaths
from personas.home.job_folder import read_spec
from personas.prompt.renderer import Renderer, TokenizedSample
from personas.schemas.chat import AdapterRef
from personas.schemas.scorecard import ScoreCard
from trainer.evaluate.candidates import BASE, LIVE, NEW, Candidate, Candidates
from trainer.evaluate.evaluate_version import (
    LOSSES_ONLY_REASON,
    EvaluationRequest,
    evaluate_version,
)
from trainer.evaluate.loss_sections import instruction_samples, loss_difference
from trainer.evaluate.memorisation import (
    MIN_VERBATIM_TOKENS,
    continuation_tokens,
    is_memorised,
    memorisation_section,
)
from trainer.evaluate.paired_losses import REPLIES_PER_STEP, paired_losses
from trainer.evaluate.persona_separation import (
    fit_adapters,
    load_other_personas,
    margin_bits,
    separation_section,
)
from trainer.evaluate.time_budget import TimeBudget
from trainer.report.scorecard_markdown import render_markdown
from trainer.train.job import prepare_job
from trainer.train.losses import ReplyLoss, TokenLosses, measure_token_losses

FOREVER = 1e9


@pytest.fixture(scope="module")
def job(two_trained):
    """Ada's, ready."""
    return prepare_job(two_trained["ada"], read_spec(two_trained["ada"]))


@pytest.fixture(scope="module")
def sides(two_trained, job):
    """Ada's adapter as the new version, Bo's as the live one."""
    sides = Candidates.load(job.base, job.tokenizer, "float32", job.data.heldout[0].ids)
    sides.add(LIVE, Candidate.sealed(two_trained["bo"] / "adapter"))
    sides.add(NEW, Candidate.sealed(two_trained["ada"] / "adapter"))
    yield sides
    sides.close()


def order(two_trained, job, **changes):
    new = Candidate.sealed(two_trained["ada"] / "adapter")
    return EvaluationRequest(job, new, training_s=FOREVER, extent="losses", **changes)


def neighbour(two_trained, persona="bo"):
    return NeighbourPaths(
        persona=persona, adapter=str(two_trained["bo"] / "adapter"), job=str(two_trained["bo"])
    )


# -------------------------------------------------------------------------------------------- sides


def test_base_is_base_whatever_lies_over_it(sides, monkeypatch):
    assert sides.names == (BASE, LIVE, NEW) and sides.stamp(BASE) is None
    assert sides.base_is_base() == 0
    used = PeftSwitcher.use
    monkeypatch.setattr(
        PeftSwitcher, "use", lambda self, ref: used(self, ref) if ref else nullcontext()
    )
    with sides.use(NEW):
        pass
    assert sides.base_is_base() > 0, "a base model that speaks through an adapter is found out"


def test_replies_are_stamped_with_the_adapter_that_made_them(sides, two_trained):
    for side, persona in ((LIVE, "bo"), (NEW, "ada")):
        manifest = verify_adapter(two_trained[persona] / "adapter")
        made = sides.stamp(side)
        assert (made.version, made.weights) == (
            manifest.version,
            manifest.checksums["adapter_model.safetensors"],
        )


# --------------------------------------------------------------------------------- held-out replies


def test_a_card_says_what_the_manifest_says_and_how_sure_it_is(two_trained, job):
    card = evaluate_version(
        order(two_trained, job, compare=ComparisonTargets(live=str(two_trained["bo"] / "adapter")))
    )
    metrics = verify_adapter(two_trained["ada"] / "adapter").metrics
    assert card.short.loss_tuned == pytest.approx(metrics.loss_tuned, abs=1e-4)
    assert card.short.loss_base == pytest.approx(metrics.loss_base, abs=1e-4)
    assert card.short.general_loss_tuned == pytest.approx(metrics.general_loss_tuned, abs=1e-4)
    assert card.heldout.replies == card.heldout.conversations == metrics.heldout_replies
    assert card.heldout.against_base.high < 0 and card.heldout.against_live.high < 0
    assert card.heldout.against_base.estimate == pytest.approx(
        metrics.loss_tuned - metrics.loss_base, abs=1e-4
    )
    assert set(card.heldout.loss) == {BASE, LIVE, NEW} and card.base_is_base == 0
    assert card.left_out["voice"] == LOSSES_ONLY_REASON and LIVE not in card.left_out
    again = ScoreCard.model_validate_json(card.model_dump_json())
    assert again == card
    result = render_markdown(card)
    loss = card.heldout.loss[NEW]
    assert "| side | loss (nats per token) | perplexity |" in result
    assert f"| {loss:.4f} | {math.exp(loss):.2f} |" in result
    assert "live version" in result and LOSSES_ONLY_REASON in result


def test_the_same_adapter_against_itself_is_no_better(two_trained, job):
    card = evaluate_version(
        order(two_trained, job, compare=ComparisonTargets(live=str(two_trained["ada"] / "adapter")))
    )
    against = card.heldout.against_live
    assert (against.low, against.estimate, against.high) == (0, 0, 0)


def test_a_live_version_that_is_gone_is_left_out_and_said(two_trained, job, tmp_path):
    card = evaluate_version(
        order(two_trained, job, compare=ComparisonTargets(live=str(tmp_path / "gone")))
    )
    assert card.heldout.against_live is None and "no complete adapter" in card.left_out[LIVE]


def test_the_loss_without_the_end_of_turn_leaves_its_tokens_out(sides, job):
    renderer = Renderer(job.tokenizer)
    losses = measure_token_losses(sides.model, job.data.heldout[:2])
    for found in losses:
        rest = found.without(len(renderer.end_ids))
        assert rest.tokens == found.whole.tokens - len(renderer.end_ids)
        assert rest.nll == pytest.approx(
            found.whole.nll - found.nll[-len(renderer.end_ids) :].sum()
        )


def test_a_difference_is_per_token_of_all_replies():
    of = [ReplyLoss(10, 5), ReplyLoss(30, 15)]
    to = [ReplyLoss(20, 5), ReplyLoss(40, 15)]
    assert loss_difference(["a", "b"], of, to).estimate == pytest.approx(-20 / 20)


# ---------------------------------------------------------------------------------- within a budget


def test_without_time_fewer_replies_are_measured_the_same_under_each_side(sides, job):
    samples = [*job.data.train, *job.data.heldout]
    assert len(samples) > REPLIES_PER_STEP
    few = paired_losses(sides.use, sides.names, samples, TimeBudget(0))
    assert len(few.places) == REPLIES_PER_STEP and list(few.places) == sorted(set(few.places))
    assert {len(losses) for losses in few.losses.values()} == {REPLIES_PER_STEP}
    assert list(few.places) != list(range(REPLIES_PER_STEP)), "not the first ones: chance decides"
    whole = paired_losses(sides.use, sides.names, samples)
    for side in sides.names:
        expected = [whole.whole(side)[place].nll for place in few.places]
        assert [loss.nll for loss in few.whole(side)] == pytest.approx(expected, rel=1e-4)


def test_what_is_known_is_not_measured_again(sides, job):
    known = [
        TokenLosses(np.array([float(n)]), np.array([False])) for n in range(len(job.data.heldout))
    ]
    found = paired_losses(sides.use, (BASE, NEW), job.data.heldout, known={BASE: known})
    assert [loss.nll for loss in found.whole(BASE)] == [float(n) for n in range(len(known))]
    assert found.whole(NEW)[0].tokens == job.data.heldout[0].reply_tokens


def test_a_budget_counts_down():
    now = [0.0]
    budget = TimeBudget(10, lambda: now[0])
    part = budget.part(0.5)
    now[0] = 4
    assert (budget.left, part.left) == (6, 1) and not part.is_spent
    now[0] = 12
    assert budget.left == 0 and budget.is_spent and part.is_spent


@pytest.mark.parametrize(("extent", "seconds"), [("full", 10), ("quick", 2)])
def test_a_card_may_take_as_long_as_the_training_by_the_clock_of_whoever_asks(
    two_trained, job, monkeypatch, extent, seconds
):
    left = []
    monkeypatch.setattr(
        "trainer.evaluate.evaluate_version._VersionEvaluation.add_sections",
        lambda self, card, *losses: left.append(self.budget.left) or card,
    )
    new = Candidate.sealed(two_trained["ada"] / "adapter")
    evaluate_version(
        EvaluationRequest(job, new, training_s=10, extent=extent, clock=lambda: 5.0)
    )  # a clock that stands still
    assert left == [pytest.approx(seconds)]


# --------------------------------------------------------------------------------------- separation


def test_each_adapter_fits_its_own_persona_without_a_word_on_who_speaks(sides, two_trained, job):
    found, missing = load_other_personas(job, [neighbour(two_trained)])
    section = separation_section(
        sides, "ada", job.data, found, budget=TimeBudget(FOREVER), between=lambda: None
    )
    assert not missing and section.own_best == section.own_best_new == 1
    assert section.margin_bits.low > 0
    assert section.loss["ada"]["ada"] < section.loss["ada"]["bo"]
    assert section.loss["bo"]["bo"] < section.loss["bo"]["ada"]


def test_an_adapter_that_is_another_ones_twin_separates_nothing(sides, two_trained, job):
    found, _ = load_other_personas(job, [neighbour(two_trained)])
    twin = AdapterRef("neighbour-bo", "twin", two_trained["ada"] / "adapter")
    section = separation_section(
        sides,
        "ada",
        job.data,
        [found[0].__class__("bo", twin, found[0].data)],
        budget=TimeBudget(FOREVER),
        between=lambda: None,
    )
    assert section.own_best == 0 and section.margin_bits.estimate == 0


def test_neighbours_that_cannot_be_compared_are_named_with_the_reason(two_trained, job, tmp_path):
    gone = NeighbourPaths(persona="oda", adapter=str(tmp_path), job=str(tmp_path))
    found, missing = load_other_personas(
        job, [gone, neighbour(two_trained, "ada"), neighbour(two_trained)]
    )
    assert [it.persona for it in found] == ["bo"], "a persona is no neighbour of its own"
    assert len(missing) == 1 and missing[0].startswith("oda: ") and "adapter" in missing[0]


def test_margins_are_in_bits_per_token_against_the_best_other():
    losses = {
        "ada": {"ada": [ReplyLoss(2, 4)], "bo": [ReplyLoss(8, 4)], "cy": [ReplyLoss(6, 4)]},
        "bo": {"ada": [ReplyLoss(3, 4)], "bo": [ReplyLoss(4, 4)], "cy": [ReplyLoss(9, 4)]},
        "cy": {"ada": [ReplyLoss(3, 2)], "bo": [ReplyLoss(4, 2)], "cy": [ReplyLoss(1, 2)]},
    }
    found = fit_adapters(losses)
    assert found.own_best == pytest.approx(2 / 3) and not found.fits["bo"].any()
    margin = margin_bits(losses, {name: ["t"] for name in losses})
    assert margin.estimate == pytest.approx(((6 - 2) + (3 - 4) + (3 - 1)) / 10 / math.log(2))


# ---------------------------------------------------------------------------------------- memorised


def greedy(model, prompt, count):
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        for _ in range(count):
            ids = torch.cat(
                [ids, model(input_ids=ids).logits[:, -1].argmax(-1, keepdim=True)], dim=1
            )
    return ids[0, len(prompt) :].tolist()


def test_what_greedy_decoding_goes_on_with_comes_back_and_nothing_else_does(sides, job):
    prompt = job.data.train[0].ids[:20]
    end = list(Renderer(job.tokenizer).end_ids)
    with sides.use(BASE) as model:
        first = [5, 6, 7, 8, 9, 10, 11, 12]
        second = greedy(model, [*prompt, *first], len(first))
        for changed, expected in ((None, True), (3, False)):
            said = [*first, *second]
            if changed is not None:
                said[len(first) + changed] += 1
            answer = [*said, *end]
            sample = TokenizedSample(
                (*prompt, *answer), (False,) * len(prompt) + (True,) * len(answer)
            )
            (losses,) = measure_token_losses(model, [sample])
            assert continuation_tokens(losses, len(end)) == len(first) == MIN_VERBATIM_TOKENS
            assert is_memorised(losses, len(end)) is expected


def test_only_replies_count_of_which_enough_is_to_come_back(sides, job):
    heldout = paired_losses(sides.use, sides.names, job.data.heldout)
    section = memorisation_section(
        sides,
        job.data,
        heldout=heldout.means(),
        end_tokens=2,
        budget=TimeBudget(FOREVER),
        between=lambda: None,
    )
    assert section.prefixes == 0 and section.verbatim == 0, "two words are no proof"
    assert set(section.gap) == set(sides.names)
    assert abs(section.gap[NEW]) < 0.1, "the same word each time is as easy held out as trained on"


def test_only_replies_under_the_card_of_the_held_out_ones_are_compared_with_them(sides, job):
    heldout = paired_losses(sides.use, sides.names, job.data.heldout).means()

    def measure(data):
        return memorisation_section(
            sides,
            data,
            heldout=heldout,
            end_tokens=2,
            budget=TimeBudget(FOREVER),
            between=lambda: None,
        )

    train = job.data.train
    other = replace(train[0], ids=tuple(reversed(train[0].ids)))
    mixed = replace(job.data, train=(other, *train[1:]), with_other_card=frozenset({0}))
    alike = replace(
        job.data, train=train[1:], train_prompt_replies=job.data.train_prompt_replies[1:]
    )
    assert measure(mixed).gap == measure(alike).gap
    none_alike = replace(job.data, with_other_card=frozenset(range(len(train))))
    assert measure(none_alike).gap == {}


def test_instructions_are_forty_and_nobodys(job):
    renderer = Renderer(job.tokenizer)
    samples = instruction_samples(renderer)
    assert len(samples) == len({sample.ids for sample in samples}) == 40
    assert all(sample.reply_tokens > len(renderer.end_ids) for sample in samples)
