"""`python -m trainer lore synthesise`: dialogues from a server or the local engine, judged, counted
and kept.
"""

import asyncio
import json
import signal
import subprocess
import sys

import pytest

from personas.card.toml_card import read_card
from personas.errors import MaterialError, RequestError, TrainingError
from personas.home.data_subjects import mark_erasure
from personas.lore.lore_folder import read_lore
from personas.lore.passages import split_passages
from tests.fakes import until
from tests.trainer.lore_server import home, lore_command, serving
from tests.trainer.scripted_teacher import NOUNS, VERBS
from trainer.dataset.synthetic import dialogue_synthesis as lore_synthesise
from trainer.dataset.synthetic import reply_backends as lore_voices
from trainer.dataset.synthetic.dialogue_synthesis import (
    SynthesisRequest,
    plan_attempt,
    synthesise_dialogues,
    trim_to_sentence,
)
from trainer.dataset.synthetic.reply_backends import choose_backend
from trainer.dataset.synthetic.reply_filter import ReplyFilter
from trainer.dataset.synthetic.speaking_style import measure_style

GOOD = {
    "tower": [
        "I wind the clock of the tower each evening. {} The bell waits for me.",
        "The tower is mine to wind at evening. {} I listen for the one bell.",
        "I go to the wheels in the evening and wind them. {} The ladder I leave to others.",
    ],
    "weir": ["Bram Weir is my cousin. {} On Sundays the wheels get their oil from him."],
    "speaks": ["I speak slowly and I do not shout. {} The clock is loud enough."],
    "market": ["The market is behind the chapel on Thursdays. {} I count the stalls from here."],
}
PLACES = "by my window,over the roofs,on the old sill,near the bench,under the stairs,behind the barrels".split(
    ","
)


def sighs(call):
    """Two sentences that no other call has."""
    first = call * 7
    second = call * 11 + 5
    return " ".join(
        f"The {NOUNS[n % 12]} {VERBS[n % 10]} {PLACES[n // 3 % 6]} tonight."
        for n in (first, second)
    )


@pytest.fixture
def material(tmp_path):
    card, lore = home(tmp_path)
    persona = read_card(card)
    return persona, tuple(read_lore(lore, ["ada", "_world"]))


def scripted(bad=()):
    """A model that answers well, but for some calls in the beginning."""
    calls = iter(range(10**6))

    def script(body):
        call = next(calls)
        if call < len(bad):
            return bad[call]
        text = body["messages"][-1]["content"].casefold()
        said = next(says for key, says in GOOD.items() if key in text)
        return said[call % len(said)].format(sighs(call))

    return script


async def made(order, endpoint):
    return await asyncio.to_thread(
        synthesise_dialogues, order, choose_backend(endpoint.url, "tester", None)
    )


async def test_dialogues_are_kept_with_where_they_come_from_and_the_rest_is_counted(
    material, tmp_path, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    persona, passages = material
    bad = [
        "",
        "As an AI language model I wind nothing.",
        "I'm sorry, but I cannot help with the clock.",
    ]
    async with serving(scripted(bad)) as endpoint:
        result = await made(SynthesisRequest(persona, passages, 5, tmp_path / "out"), endpoint)
    assert result["kept"] == 5 and result["made"] == 5 + sum(result["dropped"].values())
    assert {"under three words", "breaks character", "refuses"} <= result["dropped"].keys()
    rows = [
        json.loads(line)
        for line in (tmp_path / "out" / "ada_synthetic.jsonl").read_text("utf-8").splitlines()
    ]
    assert len(rows) == 5
    for row in rows:
        assert [message["role"] for message in row["messages"]] in (
            ["user", "assistant"],
            ["user", "assistant"] * 2,
        )
        assert row["provenance"].keys() == {"source", "heading", "generator", "seed", "attempt"}
        assert row["provenance"]["generator"] == "tester"
    assert (tmp_path / "out" / "all_characters_synthetic.jsonl").read_text() == (
        tmp_path / "out" / "ada_synthetic.jsonl"
    ).read_text()
    assert set(endpoint.keys) == {"Bearer sk-very-secret"}
    assert all("sk-very-secret" not in file.read_text() for file in (tmp_path / "out").iterdir())
    first = endpoint.bodies[0]["messages"]
    assert first[0]["role"] == "system" and first[-1]["content"].startswith("[The ")


async def test_a_run_that_was_killed_goes_on_where_it_stopped(material, tmp_path):
    persona, passages = material
    order = SynthesisRequest(persona, passages, 4, tmp_path / "out")
    async with serving(scripted()) as endpoint:
        await made(order, endpoint)
        whole = (tmp_path / "out" / "ada_synthetic.jsonl").read_bytes()
        journal = tmp_path / "out" / "ada_synthetic.attempts.jsonl"
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(
            b"".join(lines[:3]) + lines[3][:20]
        )  # killed in the middle of the third attempt
        before = len(endpoint.bodies)
        result = await made(order, endpoint)
        assert result["kept"] == 4 and len(endpoint.bodies) > before
        after = (tmp_path / "out" / "ada_synthetic.jsonl").read_bytes()
        assert after.splitlines()[:2] == whole.splitlines()[:2]
        asked = len(endpoint.bodies)
        await made(order, endpoint)
        assert len(endpoint.bodies) == asked  # there was nothing left to do
        with pytest.raises(MaterialError, match=r"another model.* seed"):
            await made(SynthesisRequest(persona, passages, 4, tmp_path / "out", seed=1), endpoint)


@pytest.mark.slow
async def test_kill_9_loses_nothing_that_was_made(tmp_path):
    card, lore = home(tmp_path)
    out = tmp_path / "out"
    words = (
        "synthesise",
        "--persona",
        card,
        "--lore",
        lore,
        "--count",
        5,
        "--model",
        "tester",
        "--out",
        out,
    )
    answer = scripted()
    killed = []
    journal = out / "ada_synthetic.attempts.jsonl"

    def script(
        body,
    ):  # four dialogues at once take up to eight questions; then the server is busy until the kill
        return answer(body) if killed or len(endpoint.bodies) <= 8 else 503

    async with serving(script) as endpoint:
        command = [
            sys.executable,
            "-m",
            "trainer",
            "lore",
            *map(str, words),
            "--endpoint",
            endpoint.url,
        ]
        process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
        await until(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 2, 30)
        process.kill()
        await process.wait()
        killed.append(True)
        before = journal.read_bytes().splitlines()
        assert not (out / "ada_synthetic.jsonl").exists()
        done = await asyncio.to_thread(lore_command, *words, "--endpoint", endpoint.url, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kept"] == 5
    assert journal.read_bytes().splitlines()[: len(before)] == before


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["lore/ada/clock.md", "ada.toml", ""])
async def test_nobody_who_is_erased_meanwhile_is_in_what_it_wrote(tmp_path, changed):
    card, lore = home(tmp_path)
    card.write_text(card.read_text("utf-8").replace("who are you", "I am Bram Weir"), "utf-8")
    out = tmp_path / "out"
    answer = scripted()
    before = []
    journal = out / "ada_synthetic.attempts.jsonl"

    def script(body):
        if not before and journal.exists() and "Bram Weir" in journal.read_text("utf-8"):
            mark_erasure(tmp_path, running=True)
            before.extend(journal.read_bytes().splitlines())
            if changed:
                text = (tmp_path / changed).read_text("utf-8")
                (tmp_path / changed).write_text(text.replace("Bram Weir", "someone"), "utf-8")
            mark_erasure(tmp_path, running=False)
        is_of_them = "someone" in body["messages"][-1]["content"]
        return "I keep the hours here." if is_of_them else answer(body)

    words = (
        "synthesise",
        "--persona",
        card,
        "--lore",
        lore,
        "--count",
        6,
        "--model",
        "tester",
        "--out",
        out,
    )
    async with serving(script) as endpoint:
        command = (*words, "--endpoint", endpoint.url, "--json")
        done = await asyncio.to_thread(lore_command, *command, UNDERSTUDY_HOME=str(tmp_path))
    assert before and done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kept"] == 6
    lines = journal.read_bytes().splitlines()
    if changed:
        assert "erased meanwhile" in done.stderr and "starts over" in done.stderr
        assert not {*lines} & {*before[1:]}
    else:
        assert lines[: len(before)] == before, "nothing is made twice"
    if changed.startswith("lore"):
        assert not [file for file in out.glob("*.jsonl") if "Weir" in file.read_text("utf-8")]


@pytest.mark.slow
async def test_who_asks_it_to_end_is_advised_how_to_go_on(tmp_path):
    card, lore = home(tmp_path)
    words = (
        "synthesise",
        "--persona",
        card,
        "--lore",
        lore,
        "--count",
        5,
        "--model",
        "m",
        "--out",
        tmp_path / "out",
    )
    async with serving(lambda body: 503) as endpoint:
        for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
            asked = len(endpoint.bodies)
            command = [
                sys.executable,
                "-m",
                "trainer",
                "lore",
                *map(str, words),
                "--endpoint",
                endpoint.url,
            ]
            process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
            await until(lambda asked=asked: len(endpoint.bodies) > asked, 30)
            process.send_signal(number)
            _, said = await process.communicate()
            (line,) = said.decode().splitlines()
            assert process.returncode == code and "same command again" in line


async def test_a_busy_server_is_asked_again_and_a_refusing_one_is_named(
    material, tmp_path, monkeypatch
):
    monkeypatch.setattr(lore_voices, "RETRY_DELAY_S", 0.01)
    persona, passages = material
    async with serving(scripted([429, 503])) as endpoint:
        assert (await made(SynthesisRequest(persona, passages, 1, tmp_path / "a"), endpoint))[
            "kept"
        ] == 1
    async with serving(lambda body: 401) as endpoint:
        with pytest.raises(RequestError, match=r"401: .*--endpoint, --model"):
            await made(SynthesisRequest(persona, passages, 1, tmp_path / "b"), endpoint)
    with pytest.raises(TrainingError, match="connection refused"):
        await made(
            SynthesisRequest(persona, passages, 1, tmp_path / "c"), endpoint
        )  # nobody listens there any more
    async with serving(lambda body: 503) as endpoint:
        with pytest.raises(TrainingError, match=r"busy or failing .*503"):
            await made(SynthesisRequest(persona, passages, 1, tmp_path / "d"), endpoint)


async def test_a_model_that_cannot_do_it_is_not_asked_for_ever(material, tmp_path):
    persona, passages = material
    async with serving(lambda body: "I'm sorry, but I cannot assist with that.") as endpoint:
        with pytest.raises(MaterialError, match=r"12 dialogues 0 .*\(12 × refuses\)"):
            await made(SynthesisRequest(persona, passages, 1, tmp_path / "out"), endpoint)


def test_the_local_engine_speaks_with_card_lore_and_adapter(
    material, tmp_path, tiny_base, monkeypatch
):
    from tests.tiny_models import make_adapter

    monkeypatch.setattr(lore_synthesise, "MAX_ATTEMPTS_PER_DIALOGUE", 1)
    persona, passages = material
    adapter = make_adapter(tmp_path / "home", tiny_base, "ada", "v1", seed=3).folder
    order = SynthesisRequest(persona, passages[:1], 1, tmp_path / "out")
    with pytest.raises(MaterialError, match="Of 1 dialogues 0"):  # two random layers know no words
        synthesise_dialogues(order, choose_backend(None, tiny_base.source, adapter))
    lines = (tmp_path / "out" / "ada_synthetic.attempts.jsonl").read_text("utf-8").splitlines()
    made = json.loads(lines[1])
    assert len(lines) == 2 and made["dropped"] and len(made["row"]["messages"]) > 1
    assert made["row"]["provenance"]["generator"] == "tiny+v1"


def test_every_passage_has_its_turn_and_the_same_order_asks_the_same(material, tmp_path):
    persona, passages = material
    order = SynthesisRequest(persona, tuple(p for p in passages if p.owner == "ada"), 9, tmp_path)
    first = [plan_attempt(order, number) for number in range(9)]
    assert first == [plan_attempt(order, number) for number in range(9)]
    assert len({each.passage for each in first[:3]}) == 3
    assert first != [
        plan_attempt(SynthesisRequest(order.persona, order.passages, 9, tmp_path, seed=1), number)
        for number in range(9)
    ]


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ("I wind the eleven wheels of the clock and wait for the bell.", None),
        ("Ok", "under three words"),
        ("I wind the clock in the tower and then", "cut off"),
        ("I'm unable to discuss the clock.", "refuses"),
        ("How can I help you with the clock today?", "breaks character"),
        ("I wind it.\nGuest: Thank you for the clock.", "breaks character"),
        ("She winds the clock in the evening.", "speaks of itself as of another"),
        ("I am glad. Ada winds the clock.", "speaks of itself as of another"),
        ("I wind the clock, and it's slow.", "out of voice"),
        ("I wind the clock of the tower!", "out of voice"),
        ("*winds* I turn the wheels of the clock.", "out of voice"),
        ("I count twelve wheels in the clock of this tower.", "contradicts card or lore"),
        ("I climbed up in the year 1842 to see the bell.", "contradicts card or lore"),
        ("I can climb to the bell of the clock.", "contradicts card or lore"),
        ("I am a goldsmith and made the bell of the clock.", "contradicts card or lore"),
        ("I paid a million pence for the bell of the clock.", "contradicts card or lore"),
        ("I wind the clock. Every evening she listens to the bell.", "speaks of itself as of another"),
        ("I wind the clock with my friend Dunkel each evening.", "names somebody who is not in the lore"),
        ("I say it: Ada Marsh winds the clock every evening; it has eleven wheels and one bell.", "repeats"),
        ("I am winding the clock. It is slow, and I am patient.", "repeats"),
        ("I had fish for my supper, with bread and butter.", "speaks of something else"),
    ],
)  # fmt: skip
def test_each_fault_has_its_reason(material, reply, fault):
    persona, passages = material
    tower = next(passage for passage in passages if passage.heading.endswith("tower"))
    assert ReplyFilter(persona, passages).fault(reply, "Tell me about the tower.", tower) == fault


def test_what_was_kept_is_not_kept_again(material):
    persona, passages = material
    judge, tower = (
        ReplyFilter(persona, passages),
        split_passages("ada", "ada/x.md", "# T\nThe clock has a bell.")[0],
    )
    reply = "I wind the clock at dusk and then the bell rings over the water."
    assert judge.fault(reply, "And?", tower) is None
    judge.keep([reply])
    assert judge.fault(reply.replace("dusk", "dawn"), "And?", tower) == "repeats"


def test_a_manner_is_reported_only_from_enough_examples(material):
    persona, _ = material
    assert measure_style(persona).contracted == 0 and measure_style(persona).starred == 0
    import dataclasses

    few = dataclasses.replace(persona, mes_example="{{user}}: hi\n{{char}}: Good day.")
    assert measure_style(few).contracted is None


def test_a_cut_reply_ends_with_its_last_whole_sentence():
    assert (
        trim_to_sentence('I wind it. "Yes!" she said. And then the')
        == 'I wind it. "Yes!" she said.'
    )
    assert trim_to_sentence("never an end") == ""


@pytest.mark.slow
def test_help_needs_no_model_library():
    code = "import sys, trainer.cli.lore_command, trainer.cli.main; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        == "False"
    )


def test_an_adapter_is_for_the_local_engine(tmp_path):
    with pytest.raises(RequestError, match=r"adapter .*local engine"):
        choose_backend("http://localhost:1/v1", "x", tmp_path)
    with pytest.raises(RequestError, match="is no address"):
        choose_backend("localhost:1", "x", None)
