"""The beginning of a reply, chosen among candidates on llama.cpp servers."""

import asyncio
from dataclasses import replace

import pytest

from personas.engine import beginning_score
from personas.engine.beginning_score import CANDIDATE_TOKENS, CARD_WEIGHT, says_again
from personas.engine.remote import llamacpp_attempts
from personas.engine.remote.llamacpp_slots import reserved_slots
from personas.prompt.renderer import CONTEXT_TOKENS
from tests.personas.llamacpp_engine.server import LlamaCppServer, Slot
from tests.personas.llamacpp_engine.test_llamacpp_engine import file_of
from tests.personas.vllm_engine.conftest import ask
from tests.personas.vllm_engine.test_vllm_engine import until

COUNT = 4
NEW_TOKENS = 20
SLOTS = 4 + reserved_slots(COUNT)
SAMPLED = {"temperature": 1.0, "seed": 7, "candidates": COUNT, "max_new_tokens": NEW_TOKENS}


@pytest.fixture
async def serve(open_engine, server, version):
    """Starts an engine over a server with two versions, and slots for candidates."""

    async def start(slots=SLOTS, **settings):
        engine = await open_engine(server.url)
        refs = [version(1), version(1, "bea")]
        paths = [engine._files.write(ref) for ref in refs]
        await engine.close()
        await server.stop()
        server.adapters = tuple(str(path) for path in paths)
        server.slot_count = slots
        server.context = slots * CONTEXT_TOKENS
        server.slots = [Slot() for _ in range(slots)]
        for name, value in settings.items():
            setattr(server, name, value)
        await server.start()
        engine = await open_engine(server.url, candidates=COUNT)
        for ref in refs:
            await engine.load(ref)
        server.requests.clear()
        return engine, refs

    return start


async def reply_to(engine, request):
    stream = engine.submit(request)
    text = "".join([piece async for piece in stream])
    assert text == stream.reply.text
    return stream.reply


@pytest.fixture
def beginnings(model, small_base):
    """The candidates' tokens, and the talk's and the card's prompts."""
    renderer = small_base[2]
    alone = LlamaCppServer(model)

    def compute(request, file):
        prompt = list(renderer.prompt(request.persona, request.turns).ids)
        card = list(renderer.card_prompt(request.persona, user=request.turns[-1].name))
        candidates = []
        for number in range(COUNT):
            ids = list(prompt)
            for _ in range(CANDIDATE_TOKENS):
                ids.append(alone.sampled_token(file, ids, number))
            candidates.append(ids[len(prompt) :])
        return candidates, prompt, card

    return compute


@pytest.fixture
def expected(model, small_base, beginnings):
    """The number of the best candidate, and the reply that it begins."""
    renderer = small_base[2]
    alone = LlamaCppServer(model)

    def logprob(file, text, tokens):
        ids = list(text)
        total = 0.0
        for token in tokens:
            total += alone.logprob(file, ids, token)
            ids.append(token)
        return total

    def compute(request, file, number=None):
        candidates, prompt, card = beginnings(request, file)
        if number is None:
            scores = []
            for tokens in candidates:
                alone_score = CARD_WEIGHT * logprob(file, card, tokens)
                scores.append(logprob(file, prompt, tokens) - alone_score)
            number = scores.index(max(scores))
        ids = [*prompt, *candidates[number]]
        while len(ids) < len(prompt) + request.sampling.max_new_tokens:
            ids.append(alone.next_token(file, ids))
        text = renderer.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)
        return number, text.strip()

    return compute


async def test_a_reply_goes_on_as_its_best_candidate(serve, server, expected):
    engine, (ada, bea) = await serve()
    assert engine.state().candidates == COUNT and engine.state().rows == 4
    chosen = []
    for at in range(12):  # by chance, six may all choose the same
        adapter = (ada, bea, None)[at % 3]
        request = ask(f"question {at}", adapter, **SAMPLED)
        reply = await reply_to(engine, request)
        number, text = expected(request, file_of(engine, adapter) if adapter else "")
        chosen.append(number)
        assert reply.text == text
        assert (reply.candidates, reply.new_tokens) == (COUNT, NEW_TOKENS)
        assert not reply.logprobs and not reply.tokens
    assert len({*chosen}) > 1
    assert {tuple(slots) for slots in server.copied_into} == {(0, 1, 2)}


async def test_each_request_names_all_adapters_and_only_its_own_slots_are_read(serve, server):
    engine, (ada, bea) = await serve()
    for adapter in (ada, bea, ada):
        await reply_to(engine, ask("hello", adapter, **SAMPLED))
    assert len(server.requests) == 3 * (1 + COUNT + 1)
    for at, body in enumerate(server.requests):
        scales = [entry["scale"] for entry in sorted(body["lora"], key=lambda it: it["id"])]
        assert scales == ([0, 1] if at // (COUNT + 2) == 1 else [1, 0])
        kind = ("sample", *["score"] * COUNT, "rest")[at % (COUNT + 2)]
        assert (body["id_slot"] in (3, 4, 5, 6)) == (kind == "score")
        # The second reply's slots were another adapter's, so were the cards' of the third.
        assert body["cache_prompt"] == (kind == "rest" or (kind, at // 6) == ("sample", 2))
    scores = [body for body in server.requests if "grammar" in body]
    assert all(body["n_predict"] == CANDIDATE_TOKENS for body in scores)
    assert len({tuple(body["prompt"]) for body in scores}) == 1
    first, rest = server.requests[0], server.requests[COUNT + 1]
    assert rest["id_slot"] == first["id_slot"] and rest["seed"] != first["seed"]
    assert len(rest["prompt"]) == len(first["prompt"]) + CANDIDATE_TOKENS
    await reply_to(engine, ask("hello", ada, **SAMPLED))
    again = [body for body in server.requests[-COUNT - 2 :] if "grammar" in body]
    assert len(again) == COUNT and all(body["cache_prompt"] for body in again)


@pytest.mark.parametrize("other", ["same voice", "another voice"])
async def test_others_that_come_before_the_choice_do_not_wait_for_it(
    serve, server, expected, other
):
    engine, (ada, bea) = await serve(token_delay_s=0.02)
    engine._scheduler.limits = replace(engine._scheduler.limits, candidate_rows=COUNT)
    request = ask("first", ada, **SAMPLED)
    first = asyncio.create_task(reply_to(engine, request))
    await until(lambda: server.copied_into, 2.0)
    plain = {**SAMPLED, "candidates": 1}
    await reply_to(engine, ask("second", bea if other == "another voice" else ada, **plain))
    reply = await first
    assert reply.candidates == 1
    assert reply.text == expected(request, file_of(engine, ada), number=0)[1]
    assert not any("grammar" in body for body in server.requests)


async def test_one_reply_is_chosen_at_a_time(serve, server):
    engine, (ada, _) = await serve(token_delay_s=0.005)
    requests = [ask(f"question {at}", ada, guild_id=at, **SAMPLED) for at in range(2)]
    replies = await asyncio.gather(*(reply_to(engine, request) for request in requests))
    assert sorted(reply.candidates for reply in replies) == [1, COUNT]
    assert len(server.copied_into) == 1


@pytest.fixture
def short_words_count(monkeypatch):
    """A text of few letters may be said again, and the stand-in's words may have one letter each."""
    monkeypatch.setattr(beginning_score, "MIN_REPEATED_LETTERS", 1)


@pytest.mark.usefixtures("short_words_count")
async def test_where_all_say_again_what_was_said_others_are_drawn_once(serve, server):
    engine, (ada, _) = await serve(is_sure=True)
    request = ask("hello", ada, **SAMPLED)
    before = await reply_to(engine, request)
    assert not any("dry_multiplier" in body for body in server.requests)
    server.requests.clear()
    after = await reply_to(engine, replace(request, replaces=before.text.upper()))
    assert not says_again(after.text, [before.text]) and after.candidates == COUNT
    first, again = [body for body in server.requests if "n_cmpl" in body]
    assert first["prompt"] == again["prompt"] and first["seed"] != again["seed"]
    assert "dry" in again["samplers"] and "dry" not in first["samplers"]
    assert (again["n_cmpl"], again["cache_prompt"]) == (COUNT, True)


@pytest.mark.usefixtures("short_words_count")
async def test_what_was_said_is_passed_over_while_there_is_another(serve, server):
    engine, (ada, _) = await serve()
    request = ask("hello", ada, **SAMPLED)
    before = await reply_to(engine, request)
    server.requests.clear()
    after = await reply_to(engine, replace(request, replaces=before.text))
    assert not says_again(after.text, [before.text]) and after.candidates == COUNT - 1
    assert len([body for body in server.requests if "n_cmpl" in body]) == 1


async def test_greedy_replies_and_those_that_ask_for_one_are_sent_as_before(serve, server):
    engine, (ada, _) = await serve()
    for sampling in ({"temperature": 0.0}, {"candidates": 1}):
        reply = await reply_to(engine, ask("hello", ada, **{**SAMPLED, **sampling}))
        assert reply.candidates == 1
    assert len(server.requests) == 2 and not any("n_cmpl" in body for body in server.requests)


async def test_a_cancelled_choice_ends_on_the_server_and_leaves_its_slots(serve, server):
    engine, (ada, _) = await serve(token_delay_s=0.02)
    stream = engine.submit(ask("first", ada, **SAMPLED))
    await until(lambda: server.copied_into, 2.0)
    stream.cancel()
    await until(lambda: not server.running, 2.0)
    assert not any(slot.lock.locked() for slot in server.slots)
    assert (await reply_to(engine, ask("next", ada, **SAMPLED))).candidates == COUNT


async def test_a_comparison_that_takes_too_long_or_fails_is_given_up(
    serve, server, expected, monkeypatch
):
    engine, (ada, _) = await serve(score_delay_s=5.0)
    monkeypatch.setattr(llamacpp_attempts, "MAX_SCORE_S", 0.05)
    request = ask("first", ada, **SAMPLED)
    reply = await reply_to(engine, request)
    assert reply.candidates == 1
    assert reply.text == expected(request, file_of(engine, ada), number=0)[1]
    await until(lambda: not server.running, 2.0)


async def test_a_server_without_slots_for_them_is_named_and_still_used(serve, server, small_base):
    engine, (ada, _) = await serve(slots=5)
    assert engine.state().candidates == 1
    reply = await reply_to(engine, ask("hello", ada, **SAMPLED))
    assert reply.candidates == 1
    [check] = [
        it
        for it in await engine._inspect(engine._replicas.all[0].client)
        if it.topic == "candidates"
    ]
    assert check.state == "warn" and "not chosen among candidates" in check.found
    assert f"--parallel {SLOTS} --kv-unified" in check.remedy


async def test_a_shared_cache_leaves_no_candidates(serve):
    engine, (ada, _) = await serve(cache_ram=True)
    reply = await reply_to(engine, ask("hello", ada, **SAMPLED))
    assert (engine.state().candidates, reply.candidates) == (1, 1)
