"""A long card: its samples are as long as they need be, and the plan says so."""

from __future__ import annotations

import pytest

from personas.card.toml_card import SHIPPED_CARDS, read_cards
from personas.errors import MaterialError
from personas.home.job_folder import read_spec
from personas.schemas.chat import Persona, Turn
from tests.trainer import job_folders
from trainer.recipe import card_fit
from trainer.recipe.auto_recipe import MAX_CPU_LENGTH
from trainer.recipe.card_fit import (
    LENGTH_STEP,
    QUESTION_TOKENS,
    card_tokens,
    fit_length_to_card,
)
from trainer.recipe.recipe_file import load_recipe
from trainer.recipe.resolve import resolve_run
from trainer.report.run_plan import plan_job
from trainer.schemas import ResolvedRecipe
from trainer.train.job import prepare_job

QUICK = load_recipe("quick")
ADA = Persona(id="ada", name="Ada", description="You are Ada, a clockmaker.")


@pytest.fixture
def long_job(tmp_path, tiny_base, monkeypatch):
    """Makes a job whose card has more tokens than samples of the recipe `quick`."""
    short = job_folders.ADA

    def made(recipe="quick", **hyperparameters):
        card = short.replace("a clockmaker.", "a clockmaker. " + "Tick tock. " * 250)
        monkeypatch.setattr(job_folders, "ADA", card)
        return job_folders.persona_job(
            tmp_path, tiny_base.source, recipe=recipe, hyperparameters=hyperparameters
        )

    return made


def prepared(folder):
    return prepare_job(folder, read_spec(folder))


def test_samples_are_as_long_as_the_card_needs_and_the_plan_says_so(long_job):
    folder = long_job()
    job = prepared(folder)
    assert job.data.trimmed == 0 and not job.data.ledger.replies
    assert max(len(sample.ids) for sample in job.data.heldout) > QUICK.max_length
    plan = plan_job(folder)
    told = [note for note in plan.notes if "the persona's card is long" in note]
    assert told and set(told) <= set(job.notes)
    assert str(QUICK.max_length) in told[0]
    counted = {row["recipe"]: row["samples"] for row in plan.as_json(())["recipes"]}
    assert counted.keys() >= {"card", "demo-cpu", "auto"} and min(counted.values()) > 0, counted


def test_a_length_that_is_asked_for_stays_and_its_failure_says_what_to_raise(long_job):
    with pytest.raises(MaterialError) as caught:
        prepared(long_job(max_length=QUICK.max_length))
    assert "Raise max_length" in caught.value.advice


def test_the_automatic_recipe_keeps_the_length_of_its_samples(long_job):
    job = prepared(long_job(recipe="auto"))
    longest = max(len(sample.ids) for sample in job.data.train)
    run = resolve_run("auto", job.recipe, job.base, job.data, work=job.workload)
    assert run.recipe.max_length == job.recipe.max_length >= longest > MAX_CPU_LENGTH
    assert not any(f"max_length {MAX_CPU_LENGTH}" in why for why in run.chosen)


def test_other_cards_change_nothing_and_no_length_is_beyond_the_model(
    renderer, tiny_base, monkeypatch
):
    size = card_tokens(ADA, renderer)
    card = len(renderer.prompt(ADA, [Turn("", "")], max_tokens=10_000).ids)
    assert size > card + QUESTION_TOKENS
    fits = QUICK.with_values(max_length=size)
    assert fit_length_to_card(fits, size, tiny_base) == fits
    assert fit_length_to_card(fits, card_tokens(None, renderer), tiny_base) == fits
    short = fits.with_values(max_length=fits.max_length - 1)
    longer = fit_length_to_card(short, size, tiny_base)
    assert longer.max_length > fits.max_length and longer.max_length % LENGTH_STEP == 0
    monkeypatch.setattr(card_fit, "max_positions", lambda base: fits.max_length + 8)
    assert fit_length_to_card(short, size, tiny_base).max_length == fits.max_length + 8
    monkeypatch.setattr(card_fit, "max_positions", lambda base: 16)
    assert fit_length_to_card(short, size, tiny_base).max_length == short.max_length


def test_the_shipped_personas_fit_the_recipes_as_they_are(renderer, tiny_base):
    for persona in read_cards(SHIPPED_CARDS).values():
        size = card_tokens(persona, renderer)
        assert fit_length_to_card(QUICK, size, tiny_base) == QUICK, persona.name


def test_a_run_that_is_resumed_keeps_its_length(renderer, tiny_base):
    begun = ResolvedRecipe(QUICK.with_values(max_length=200))
    ada = Persona(id="ada", name="Ada", description="Tick tock. " * 400)
    size = card_tokens(ada, renderer)
    assert fit_length_to_card(QUICK, size, tiny_base, begun).max_length == 200


def test_a_data_set_says_how_long_its_samples_are(command, tiny_base, tmp_path, caplog):
    card = tmp_path / "ada.toml"
    card.write_text(
        job_folders.ADA.replace("a clockmaker.", "a clockmaker. " + "Tick tock. " * 250)
    )
    log = tmp_path / "talk.json"
    log.write_text(job_folders.export(job_folders.talks(16)))
    job_folders.sign(log)
    code, _, errors = command(
        *("dataset", "build", "--source", str(log), "--persona", str(card), "--recipe", "quick"),
        *("--base-model", tiny_base.source, "--out", str(tmp_path / "set")),
    )
    assert code == 0, errors
    assert "instead of 512: the persona's card is long" in caplog.text
