"""The examples, run as people run them."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from personas.engine.llm_engine import LLMEngine
from personas.home.adapters import CONFIG_FILE, WEIGHTS_FILE
from personas.home.job_folder import read_spec
from personas.home.preferences import read_preferences
from personas.models import base_model
from personas.schemas.chat import SamplingParams
from tests.hub_server import Hub, Repository, reach
from tests.tiny_models import make_adapter, make_dialogue_adapter
from tests.trainer.job_folders import persona_job
from tests.trainer.read_sources import only
from trainer.dataset.sample_renderer import SampleRenderer
from trainer.recipe.recipe_file import load_recipe
from trainer.train.job import prepare_job

ROOT = Path(__file__).parent.parent
EXAMPLE = "examples/persona_chat.py"
CONTRAST = "examples/contrast_pairs.py"
ODA = ROOT / "personas" / "cards" / "oda.toml"


def by_hand(*words: object) -> subprocess.CompletedProcess[str]:
    """As typed."""
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.fixture
def chat(monkeypatch, capsys):
    """The same in this process, where the libraries are loaded already: exit code, output,
    errors.
    """

    def run(*words):
        monkeypatch.setattr(sys, "argv", [EXAMPLE, *map(str, words)])
        code = runpy.run_path(str(ROOT / EXAMPLE))["main"]()
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.mark.slow
def test_an_adapter_answers_the_same_for_the_same_seed_and_another_adapter_otherwise(
    tmp_path, tiny_base, chat
):
    one, other = (make_adapter(tmp_path, tiny_base, "oda", f"v{seed}", seed) for seed in (1, 2))
    asked = (ODA, "Is there soup?", "--seed", "1", "--max-new-tokens", "12")
    typed = by_hand(EXAMPLE, one.folder, *asked)
    assert typed.returncode == 0 and typed.stdout.strip() and not typed.stderr
    (code, again, _), (_, another, _) = chat(one.folder, *asked), chat(other.folder, *asked)
    assert code == 0 and again == typed.stdout != another


def test_what_is_missing_or_damaged_is_said_in_a_line(tmp_path, tiny_base, chat):
    ref = make_adapter(tmp_path, tiny_base, "oda", "v1", 1)
    for words, said in (
        ((tmp_path / "none", ODA, "Hello?"), "Name a complete adapter: its folder has"),
        ((ref.folder, "no-such-card.toml", "Hello?"), "no-such-card.toml"),
        ((ref.folder, ODA, "Hello?", "--base-model", tmp_path), "has no config.json"),
    ):
        code, output, errors = chat(*words)
        assert code == 1 and said in errors and len(errors.splitlines()) == 1 and not output
    weights = ref.folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert "is damaged: adapter_model.safetensors" in chat(ref.folder, ODA, "Hello?")[2]


def test_an_adapter_of_a_hub_answers_as_its_folder_does(tmp_path, tiny_base, chat, monkeypatch):
    ref = make_adapter(tmp_path, tiny_base, "oda", "v1", 1)
    asked = (ODA, "Is there soup?", "--seed", "1", "--max-new-tokens", "12")
    plain = {name: (ref.folder / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)}
    with Hub({"harbour/oda": Repository({"c" * 40: plain})}).serve() as address:
        reach(monkeypatch, address, str(tmp_path / "cache"))
        code, output, errors = chat("harbour/oda", *asked)
    assert code == 0 and output == chat(ref.folder, *asked)[1]
    assert errors.startswith("… asking the hub for harbour/oda\n")


FACTS = ("I keep bees.", "I live by the sea.")
TALK = ("Who are you?", "Ann.", "Do you like honey?")


@pytest.mark.parametrize("way", ["options", "labels", "no question"])
def test_facts_and_the_dialogue_so_far_make_the_prompt_of_a_training_sample(
    tmp_path, tiny_base, chat, renderer, monkeypatch, way
):
    """The prompt that the engine renders is the one of a PersonaChat row, token for token."""
    folder = make_dialogue_adapter(tmp_path, tiny_base, "talk", 1)
    row = {"persona_b": [*FACTS], "dialogue": [*TALK], "reference": "Every day."}
    _, conversation = only(tmp_path / "rows.jsonl", json.dumps(row).encode())
    recipe = load_recipe("s4-persona-chat")
    sample = list(SampleRenderer(renderer, None, None, recipe, None).render(conversation, {}))[
        -1
    ].sample

    (tmp_path / "facts.txt").write_text("\n".join([*FACTS, ""]), encoding="utf-8")
    labels = ("Person A: ", "Person B: ", "Person A: ") if way == "labels" else ("", "", "")
    lines = [f"{label}{text}" for label, text in zip(labels, TALK, strict=True)]
    so_far = lines if way == "no question" else lines[:2]
    (tmp_path / "talk.txt").write_text("\n".join(so_far), encoding="utf-8")
    words = ["--facts", tmp_path / "facts.txt", "--history", tmp_path / "talk.txt"]
    if way == "options":
        words = [word for fact in FACTS for word in ("--fact", fact)] + [
            x for it in so_far for x in ("--turn", it)
        ]
    if way != "no question":
        words = [TALK[-1], *words]
    requests = []
    submit = LLMEngine.submit
    monkeypatch.setattr(
        LLMEngine, "submit", lambda engine, it: requests.append(it) or submit(engine, it)
    )
    code, output, errors = chat(folder, *words, "--max-new-tokens", "4", "--seed", "1")
    assert code == 0 and output.strip(), errors
    prompt = renderer.prompt(requests[0].persona, requests[0].turns)
    assert prompt.ids == sample.ids[: len(prompt.ids)] and all(sample.mask[len(prompt.ids) :])
    assert not any(sample.mask[: len(prompt.ids)])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--facts", "none.txt", "Hi"), 1, "none.txt cannot be read: No such file"),
        (("--history", "rows.bin", "Hi"), 1, "rows.bin cannot be read: it is not UTF-8"),
        (("--history", "blank.txt"), 1, "blank.txt is empty"),
        (
            ("--turn", "A: Hi", "--turn", "B: Hello"),
            1,
            "ends with a line of B",
        ),
        ((), 2, "add a question, --turn or --history"),
        ((ODA, "Hi", "--fact", "I keep bees."), 2, "one card or facts about B"),
        (("Hi", "--max-new-tokens", "0"), 2, "--max-new-tokens has to be 1 or more"),
    ],
)
def test_facts_and_dialogues_that_cannot_be_used_are_refused_with_the_reason(
    tmp_path, chat, monkeypatch, capsys, words, code, said
):
    (tmp_path / "rows.bin").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "blank.txt").write_text(" \n\n")
    monkeypatch.chdir(tmp_path)
    if code == 2:
        with pytest.raises(SystemExit, match="2"):
            chat("adapter", *words)
        assert said in capsys.readouterr().err
    else:
        found, output, errors = chat("adapter", *words)
        assert found == 1 and said in errors and not output and len(errors.splitlines()) == 1


def test_contrast_pairs_are_of_replies_that_were_trained_on_and_the_trainer_reads_them(
    tmp_path, tiny_base, monkeypatch, capsys
):
    job = persona_job(tmp_path / "job", tiny_base.source)
    out = tmp_path / "pairs.jsonl"
    data = prepare_job(job, read_spec(job), stores_dataset=True).data
    trained = {(it.message, it.reply) for it in data.train_prompt_replies if it.by_persona}

    def run(*words):
        monkeypatch.setattr(sys, "argv", [CONTRAST, *map(str, words)])
        return runpy.run_path(str(ROOT / CONTRAST))["main"](), capsys.readouterr().err

    monkeypatch.setattr(
        base_model, "recommended_sampling", lambda base: SamplingParams(max_new_tokens=5)
    )
    code, said = run(job, out, "--pairs", 9)
    pairs = read_preferences(out)
    assert (code, len(pairs)) == (0, 9) and said.endswith("9 of 9 pairs\n")
    assert {(it.prompt[-1].text, it.chosen) for it in pairs} <= trained and all(
        it.rejected for it in pairs
    )
    assert len({it.rejected for it in pairs}) > 1 and {it.right for it in pairs} == {"own-writing"}
    example = runpy.run_path(str(ROOT / CONTRAST))
    (record,) = example["draw_exchanges"](job, 1, 0)
    assert not any(example["preference"](record, useless) for useless in (" ", record.said.reply))
    code, said = run(job, out)
    assert code == 1 and "exists. Name another file" in said and len(read_preferences(out)) == 9
    code, said = run(tmp_path, tmp_path / "other")
    assert code == 1 and "Name a job folder." in said and not (tmp_path / "other").exists()
    assert out.stat().st_mode & 0o777 == 0o600, "it contains the log's texts"
    code, said = run(job, tmp_path / "nowhere" / "pairs.jsonl")
    assert code == 1 and f"no folder {tmp_path / 'nowhere'}. Create it" in said

    async def stopped(engine):
        raise KeyboardInterrupt

    monkeypatch.setattr(LLMEngine, "start", stopped)
    code, said = run(job, tmp_path / "other")
    assert code == 1 and said.startswith("stopped: ") and not (tmp_path / "other").exists()


def test_its_help_and_the_readme_say_how_it_is_called():
    assert f'{EXAMPLE} ADAPTER CARD "What do you do all day?"' in by_hand(EXAMPLE, "--help").stdout
    assert EXAMPLE in (ROOT / "README.md").read_text(encoding="utf-8")
