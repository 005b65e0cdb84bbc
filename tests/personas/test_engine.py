"""The engine compared with transformers and peft, on a tiny real model."""

import asyncio
import shutil
import time
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel

from personas.engine.detokenizer import StreamingDetokenizer
from personas.engine.llm_engine import LLMEngine
from personas.engine.reply_sequence import ReplySequence
from personas.errors import AdapterError, BaseModelError, EngineBusyError
from personas.models.loading import load_model
from personas.schemas.chat import ChatRequest, LoreHit, Persona, SamplingParams, Turn
from tests.personas.changed_sampling import CHANGED
from tests.tiny_models import make_adapter, make_tiny_model

ADA = Persona("ada", "Ada", description="You are Ada.")
GREEDY = SamplingParams(
    temperature=0.0, max_new_tokens=12, repetition_penalty=1.0, stop_loops=False
)


def ask(text: str, adapter=None, sampling=GREEDY) -> ChatRequest:
    return ChatRequest(ADA, (Turn("Bo", text),), (), adapter, sampling)


async def answer(engine, request) -> str:
    stream = engine.submit(request)
    pieces = [piece async for piece in stream]
    assert "".join(pieces) == stream.reply.text
    return stream.reply.text


@pytest.fixture
async def engine(tiny_base):
    engine = LLMEngine(tiny_base, "float32", rows=3, max_waiting=5)
    await engine.start()
    yield engine
    await engine.close()


@pytest.fixture(scope="module")
def adapters(tmp_path_factory, tiny_base):
    home = tmp_path_factory.mktemp("home")
    return [make_adapter(home, tiny_base, "ada", f"v{n}", seed=n, rank=4 * n) for n in (1, 2)]


def reference(tiny_base, renderer, text: str, adapter=None, prefill: str = "") -> str:
    """Generate greedily with transformers and peft; after a prefill, without removing blanks at the
    beginning.
    """
    model = load_model(tiny_base, "float32")
    if adapter:
        model = PeftModel.from_pretrained(model, adapter.folder).eval()
    begun = renderer.tokenizer(prefill, add_special_tokens=False)["input_ids"] if prefill else []
    ids = torch.tensor([[*renderer.prompt(ADA, [Turn("Bo", text)]).ids, *begun]])
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12,
            eos_token_id=list(renderer.stop_ids), pad_token_id=renderer.stop_ids[0],
        )  # fmt: skip
    said = renderer.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    return said.rstrip() if prefill else said.strip()


async def test_versions_and_base_take_turns_and_each_speaks_for_itself(
    engine, tiny_base, renderer, adapters
):
    first, second = adapters
    expected = {ref: reference(tiny_base, renderer, "hello", ref) for ref in (None, first, second)}
    assert len(set(expected.values())) == 3
    order = [None, first, second, first, None, second, second, None]
    streams = [engine.submit(ask("hello", ref)) for ref in order]
    for stream, ref in zip(streams, order, strict=True):
        text = "".join([piece async for piece in stream])
        assert text.strip() == expected[ref]
        assert stream.reply.version == (ref.version if ref else None)


async def test_a_reply_goes_on_from_a_beginning_that_is_given(
    engine, tiny_base, renderer, adapters
):
    for ref in (None, adapters[0]):
        expected = reference(tiny_base, renderer, "hello", ref, prefill="Hello there")
        text = await answer(engine, replace(ask("hello", ref), prefill="Hello there"))
        assert text == expected != await answer(engine, ask("hello", ref))
        blank = await answer(engine, replace(ask("hello", ref), prefill="Hello there "))
        assert blank == expected.lstrip()


async def test_an_adapter_that_was_pushed_out_comes_back(tiny_base, renderer, adapters):
    engine = LLMEngine(tiny_base, "float32", slots=1)
    await engine.start()
    for ref in (*adapters, *adapters):
        assert (await answer(engine, ask("hi", ref))).strip() == reference(
            tiny_base, renderer, "hi", ref
        )
    await engine.close()


async def test_a_dropped_adapter_is_gone_for_good_and_the_others_go_on(
    engine, tiny_base, renderer, tmp_path
):
    first, second = (make_adapter(tmp_path, tiny_base, "ada", f"v{n}", seed=n) for n in (1, 2))
    for ref in (first, second):
        await answer(engine, ask("hi", ref))
    await engine.drop(first)
    shutil.rmtree(first.folder)
    with pytest.raises(AdapterError, match="no complete adapter"):
        await answer(engine, ask("hi", first))
    assert (await answer(engine, ask("hi", second))).strip() == reference(
        tiny_base, renderer, "hi", second
    )
    await engine.drop(second)
    await engine.drop(second)  # it is not loaded any more
    assert (await answer(engine, ask("hi"))).strip() == reference(tiny_base, renderer, "hi", None)
    assert (await answer(engine, ask("hi", second))).strip() == reference(
        tiny_base, renderer, "hi", second
    )


async def test_a_damaged_adapter_is_refused_and_the_next_request_is_answered(
    engine, tiny_base, tmp_path
):
    ref = make_adapter(tmp_path, tiny_base, "ada", "v3", seed=3)
    weights = ref.folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(AdapterError, match=r"damaged: adapter_model\.safetensors"):
        await engine.load(ref)
    with pytest.raises(AdapterError, match="damaged"):
        await answer(engine, ask("hello", ref))
    assert await answer(engine, ask("hello"))


async def test_an_adapter_for_another_base_model_is_refused(engine, tmp_path, renderer):
    from personas.models.base_model import locate

    make_tiny_model(tmp_path / "other", renderer.tokenizer, seed=9)
    ref = make_adapter(tmp_path, locate(str(tmp_path / "other")), "ada", "v1", seed=1)
    with pytest.raises(AdapterError, match="another base model"):
        await engine.load(ref)


async def test_a_seed_that_was_drawn_is_reported_and_repeats_the_reply(engine):
    # Few tokens: with the prefix cached, rounding differs, and among 49,152 it decides once in a
    # hundred runs.
    sampling = SamplingParams(temperature=1.0, top_k=8, max_new_tokens=12)
    stream = engine.submit(ask("hello", sampling=sampling))
    text = "".join([piece async for piece in stream])
    again = replace(sampling, seed=stream.reply.seed)
    assert await answer(engine, ask("hello", sampling=again)) == text


async def test_each_field_of_the_sampling_that_the_engine_states_changes_a_reply(engine):
    usual = replace(GREEDY, temperature=1.0, top_p=1.0, seed=5)
    plain = await answer(engine, ask("hello", sampling=usual))
    assert engine.sampling_fields >= CHANGED.keys()
    for field, value in CHANGED.items():
        sampling = replace(usual, **{field: value})
        assert await answer(engine, ask("hello", sampling=sampling)) != plain, field


async def test_cancel_ends_a_running_reply_and_one_that_waits(tiny_base):
    engine = LLMEngine(tiny_base, "float32", rows=1)
    await engine.start()
    long = SamplingParams(temperature=1.0, max_new_tokens=1000, seed=1)
    running = engine.submit(ask("hello", sampling=long))
    waiting = engine.submit(ask("hello", sampling=long))
    async for _ in running:
        if not waiting.cancelled.is_set():
            waiting.cancel()
            assert [
                piece async for piece in waiting
            ] == [] and waiting.reply.finish == "cancelled", "at once"
        running.cancel()
    assert running.reply.finish == "cancelled" and 0 < running.reply.new_tokens < 900
    assert waiting.reply.finish == "cancelled" and waiting.reply.new_tokens == 0
    await engine.close()


async def test_replies_are_made_at_the_same_time_each_with_its_adapter(engine, adapters):
    long = SamplingParams(temperature=1.0, max_new_tokens=60, seed=1)
    order: list[int] = []

    async def follow(number: int, stream) -> None:
        async for _ in stream:
            order.append(number)

    refs = [None, *adapters]
    streams = [engine.submit(ask("hello", ref, long)) for ref in refs]
    await asyncio.gather(*(follow(number, stream) for number, stream in enumerate(streams)))
    firsts, lasts = ([line.index(n) for n in range(3)] for line in (order, order[::-1]))
    assert max(firsts) < len(order) - 1 - max(lasts), "all have begun before the first ends"
    assert [stream.reply.version for stream in streams] == [None, "v1", "v2"]


async def test_a_reply_names_the_lore_that_its_prompt_had_room_for(engine):
    wide = LoreHit("wide.md", "w", "word " * 5000, 1.0)
    near = LoreHit("near.md", "n", "Tea is at four.", 2.0)
    stream = engine.submit(replace(ask("when is tea?"), lore=(wide, near)))
    assert [piece async for piece in stream] and stream.reply.lore == (near,)


async def test_who_is_refused_learns_for_how_long_and_another_server_still_finds_room(engine):
    streams = [engine.submit(ask("hello")) for _ in range(8)]
    with pytest.raises(EngineBusyError, match=r"5 replies .* about \d+ s\."):
        engine.submit(ask("hello"))
    streams.append(engine.submit(replace(ask("hello"), guild_id=7)))
    for stream in streams:
        await answer_of(stream)
    assert await answer(engine, ask("hello")), "there is room again"


async def test_a_step_that_stumbles_ends_what_runs_and_nothing_else(engine, monkeypatch):
    scheduler = engine._parts.batch.scheduler
    with monkeypatch.context() as patch:
        patch.setattr(scheduler, "schedule", lambda phase: 1 / 0)
        stream = engine.submit(ask("hello"))
        with pytest.raises(ZeroDivisionError):
            await answer_of(stream)
    assert await answer(engine, ask("hello"))


async def test_the_event_loop_goes_on_while_the_model_works(engine):
    stream = engine.submit(
        ask("hello", sampling=SamplingParams(temperature=1.0, max_new_tokens=120, seed=1))
    )
    slowest = 0.0
    done = asyncio.ensure_future(answer_of(stream))
    while not done.done():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        slowest = max(slowest, time.perf_counter() - before)
    assert slowest < 0.5


async def answer_of(stream) -> None:
    async for _ in stream:
        pass


async def test_a_model_that_is_not_there_is_one_clear_error(tmp_path):
    from personas.models.base_model import BaseModel

    (tmp_path / "config.json").write_text("{")
    engine = LLMEngine(BaseModel("broken", str(tmp_path), 1), "float32")
    with pytest.raises(BaseModelError, match="broken"):
        await engine.start()


class TestText:
    """The streaming detokenizer."""

    def stream(self, renderer, stop=()):
        shown: list[str] = []
        text = StreamingDetokenizer(renderer, stop, shown.append)
        return text, shown

    def feed(self, renderer, text, words):
        for token in renderer.tokenizer(words, add_special_tokens=False)["input_ids"]:
            text.append(token)

    def test_characters_of_several_tokens_come_whole(self, renderer):
        text, shown = self.stream(renderer)
        self.feed(renderer, text, "Xin chào 👩‍🚀 bạn 漢字")
        text.flush()
        assert "".join(shown) == "Xin chào 👩‍🚀 bạn 漢字" and not any(
            "\ufffd" in piece for piece in shown
        )

    @pytest.mark.parametrize("ends", ["max tokens", "end of turn"])
    def test_white_space_at_the_end_is_never_shown(self, renderer, ends):
        text, shown = self.stream(renderer)
        self.feed(renderer, text, "Good day.\n\n")
        if ends == "end of turn":
            text.append(next(iter(renderer.stop_ids)))
        text.flush()
        assert "".join(shown) == text.text == "Good day."

    def test_a_stop_string_is_cut_out_and_never_shown(self, renderer):
        text, shown = self.stream(renderer, ("\nBo:",))
        self.feed(renderer, text, "Good day.\nBo: and then I said")
        assert text.stopped and "".join(shown) == "Good day."

    def test_the_heading_of_a_passage_ends_the_reply(self, renderer):
        hit = LoreHit("quay.md", "{{char}}: Lanterns", "They hang behind the bar.", 1.0)
        turns = (Turn("Bo", "where are the lanterns?"),)
        prompt = renderer.prompt(ADA, turns, [hit])
        assert prompt.lore == (hit,)
        shown = []
        sink = SimpleNamespace(push=shown.append)
        sequence = ReplySequence.create(ChatRequest(ADA, turns, (hit,)), prompt, renderer, sink)
        text = sequence._detokenizer
        assert f"[{ADA.name}: Lanterns] They hang" in prompt.text
        self.feed(renderer, text, f"Not [here]. [{ADA.name}: Lanterns] They hang")
        assert text.stopped and "".join(shown) == "Not [here]."

    @pytest.mark.parametrize("gap", [" ", "\n"])
    @pytest.mark.parametrize(
        "leak",
        ["[", "[P", "[People", "[People of", "[People of the quay] Mina", "[People of Skerrow] A"],
    )
    @pytest.mark.parametrize("ends", ["max tokens", "end of turn"])
    def test_no_part_of_a_heading_is_left_in_a_reply(self, renderer, gap, leak, ends):
        shown: list[str] = []
        headings = ("[The tower]", "[People of Skerrow]")
        text = StreamingDetokenizer(renderer, (), shown.append, headings=headings)
        self.feed(renderer, text, f"She keeps [both] lamps.{gap}{leak}")
        if ends == "end of turn":
            text.append(next(iter(renderer.stop_ids)))
        text.flush()
        assert "".join(shown) == text.text == "She keeps [both] lamps."

    def test_another_bracket_is_no_heading(self, renderer):
        text = StreamingDetokenizer(renderer, (), [].append, headings=("[People of Skerrow]",))
        self.feed(renderer, text, "[Peers over the bar] The [people] sleep.")
        text.flush()
        assert text.text == "[Peers over the bar] The [people] sleep."

    def test_what_only_looked_like_a_stop_string_is_shown_in_the_end(self, renderer):
        text, shown = self.stream(renderer, ("\nBo:",))
        self.feed(renderer, text, "Good day.\nBo")
        assert "".join(shown) == "Good day."
        text.flush()
        assert "".join(shown) == "Good day.\nBo"

    def test_the_end_of_turn_stops_and_is_not_text(self, renderer):
        text, shown = self.stream(renderer)
        self.feed(renderer, text, "Good day.<|im_end|>more")
        assert text.stopped and "".join(shown) == "Good day."


async def test_tokens_are_reported_with_what_else_was_likely_and_the_prompt_that_was_read(engine):
    asked = SamplingParams(temperature=1.0, max_new_tokens=12, seed=5, alternatives=3)
    stream = engine.submit(replace(ask("hello", sampling=asked), instructions="Speak of rain."))
    await answer_of(stream)
    reply = stream.reply
    assert len(reply.tokens) == reply.new_tokens
    assert all(
        len(token.alternatives) == 3 and token.alternatives[0][1] >= token.logprob - 1e-5
        for token in reply.tokens
    )
    assert all(
        one[1] >= two[1] for token in reply.tokens for one, two in pairwise(token.alternatives)
    )
    said, whole = (
        "".join(filter(str.isascii, text))
        for text in (reply.text, "".join(token.text for token in reply.tokens))
    )
    assert said and said in whole, "but for parts of characters, the tokens are the text"
    assert "Speak of rain.<|im_end|>" in reply.prompt and reply.prompt.endswith("assistant\n")
    plain = engine.submit(ask("hello", sampling=replace(asked, alternatives=None)))
    await answer_of(plain)
    assert plain.reply.tokens == () and "rain" not in plain.reply.prompt
