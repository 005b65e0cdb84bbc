"""Members compare two versions: what they are shown, that it is blind, that a vote is one, and what
moderators read.
"""

import asyncio
import re
from dataclasses import replace

import pytest

from bot.demo_guild import NEWCOMER
from bot.store import NewBlindComparison
from bot.versions.blind_test.prompts import prompts_for
from bot.versions.blind_test.store import COMPARISON_LIFETIME_S
from personas.errors import AdapterError
from personas.lore.index import guild_owner
from personas.lore.passages import Passage
from sandbox import SandboxRefusal
from sandbox.interactions import InteractionType
from tests.bot.conftest import OFFICE, QUAY, on_stage
from tests.bot.test_roles import set_role
from tests.bot.version_rows import install
from tests.fake_engine import FakeEngine
from tests.fakes import until

NUMBERS = iter(range(1_000_000))


def takes(request):
    """Says something else each time, and nothing of the version."""
    return [f"Take {next(NUMBERS)} ", f"on {request.turns[-1].text}"]


@pytest.fixture
async def stage(tmp_path):
    """Two versions of Ballast are installed; v1 speaks."""
    async with on_stage(tmp_path, engine=FakeEngine(takes)) as made:
        for _ in range(2):
            install(made.store)
        made.store.versions.promote("ballast", "v1", 1, 2.0)
        yield made


async def response_text(answer):
    """An answer once it is there, in words."""
    await until(lambda: answer.message and not answer.message["flags"] & 128)
    return answer.message["content"]


async def compared(stage, **options):
    """The invitation that members see, and the moderator's own comparison."""
    mark = stage.mark
    answer = await stage.moderator.slash(QUAY, "finetune compare", **options)
    await response_text(answer)
    return await stage.sees("Which Ballast is better?", since=mark), answer


def labels(message):
    return [button["label"] for row in message["components"] for button in row["components"]]


async def vote(stage, who, invitation, choice):
    """A member's comparison and their vote on it; gives what they read before and after."""
    answer = await who.click(invitation, "Compare")
    before = await response_text(answer)
    done = await who.click(answer.message, choice)
    assert answer.ephemeral
    return before, done.message["content"], answer.message


async def test_a_moderator_and_members_get_two_complete_replies_each_of_their_own(stage):
    invitation, own = await compared(stage)
    assert own.ephemeral and labels(own.message) == ["A", "B", "Tie", "Both bad"]
    assert labels(invitation) == ["Compare"]
    prompts = {prompt.text for prompt in prompts_for("ballast", stage.client.services.home)}
    for who in (stage.member, stage.moderator):
        answer = await who.click(invitation, "Compare")
        words = await response_text(answer)
        asked = re.search(r"Somebody says to \*\*Ballast\*\*: (.*)", words)[1]
        assert asked in prompts and words.count(f"on {asked}") == 2 and answer.ephemeral
        if who is stage.moderator:
            assert words == own.message["content"], (
                "the one that is open, not another to choose from"
            )
    assert {request.adapter.version for request in stage.engine.requests} == {"v1", "v2"}
    assert len(stage.engine.requests) == 4
    assert all(request.needs_adapter for request in stage.engine.requests), "no other may stand in"
    ids = [
        button["custom_id"] for row in answer.message["components"] for button in row["components"]
    ]
    kinds = [re.sub(r"\d+", "N", custom_id) for custom_id in ids]
    assert kinds == ["judge:N:a", "judge:N:b", "judge:N:tie", "judge:N:bad"], (
        "which tell nobody which is which"
    )


async def test_nothing_is_shown_before_both_replies_are_complete(stage):
    stage.engine.free.clear()
    answer = await stage.moderator.slash(QUAY, "finetune compare")
    await until(lambda: len(stage.engine.requests) == 2)
    await asyncio.sleep(0.1)
    assert answer.message["flags"] & 128 and not answer.message["content"]
    stage.engine.free.set()
    assert (await response_text(answer)).count("Take ") == 2


async def test_nothing_shown_tells_the_versions_until_the_vote_and_then_it_is_reported(stage):
    invitation, _ = await compared(stage)
    orders = set()
    for _ in range(40):  # a fair coin does not fall the same way so often
        before, after, message = await vote(stage, stage.member, invitation, "A")
        assert not re.search(r"v1|v2|base", before)
        (one,) = [one for one in stage.store.comparisons.voted("ballast") if one.text_a in before]
        assert f"Your vote: **A**. A was **{one.version_a}**, B was **{one.version_b}**." in after
        assert one.text_b in after and labels(message) == ["Another"]
        orders.add(one.version_a)
        if len(orders) == 2:
            break
    assert orders == {"v1", "v2"}, "the order is drawn by chance"


async def test_a_vote_is_locked_and_nobody_votes_for_somebody_else(stage):
    invitation, own = await compared(stage)
    own_id = own.message["components"][0]["components"][0]["custom_id"]
    with pytest.raises(SandboxRefusal):
        await stage.member.click(own.message, own_id)
    answer = await stage.member.click(invitation, "Compare")
    await response_text(answer)
    seq = int(re.search(r"judge:(\d+)", str(answer.message["components"]))[1])
    comparisons = stage.store.comparisons
    assert not comparisons.vote(seq, int(stage.moderator.id), "b", 1.0), "not theirs"
    before = dict(answer.message)
    await stage.member.click(answer.message, "Tie")
    assert comparisons.get(seq).choice == "tie"
    assert not comparisons.vote(seq, int(stage.member.id), "a", 2.0)
    interaction = await press_again(stage, before, f"judge:{seq}:a")
    assert "You have voted on these two." in interaction and "A was" in interaction
    assert (
        comparisons.get(seq).choice == "tie"
        and sum(comparisons.judgement_counts("ballast", "v1", "v2")) == 1
    )


async def test_a_comparison_of_yesterday_is_asked_to_be_expired_and_counts_nowhere(stage):
    invitation, _ = await compared(stage)
    answer = await stage.member.click(invitation, "Compare")
    before = await response_text(answer)
    seq = int(re.search(r"judge:(\d+)", str(answer.message["components"]))[1])
    comparisons = stage.store.comparisons
    comparisons.mark_shown_again(seq, comparisons.get(seq).shown_at - COMPARISON_LIFETIME_S - 60)
    done = await stage.member.click(answer.message, "A")
    assert "**Expired**" in done.message["content"] and labels(done.message) == ["Another"]
    assert not re.search(r"v1|v2|base", done.message["content"]), "who wrote which stays untold"
    assert (
        comparisons.voted("ballast") == [] and comparisons.votes_since(int(stage.member.id), 0) == 0
    )
    another = await stage.member.click(invitation, "Compare")
    assert await response_text(another) != before


async def press_again(stage, message, custom_id):
    """As a client does that has not heard yet that the buttons are gone: two presses at once."""
    channel = stage.sandbox.channel(QUAY)
    data = {"component_type": 2, "custom_id": custom_id, "id": 1}
    answer = await stage.member._ask(InteractionType.COMPONENT, channel, data, message)
    return await response_text(answer)


async def test_another_gives_a_prompt_that_was_not_seen_yet_until_all_were(stage):
    home = stage.client.services.home
    (home / "prompts").mkdir()
    (home / "prompts" / "ballast.txt").write_text("# ours\nWhat now?\n\nWhy?\nWhat now?\nWho?\n")
    invitation, _ = await compared(stage)
    answer = await stage.member.click(invitation, "Compare")
    seen = []
    for _ in range(6):
        seen.append(re.search(r"\*\*Ballast\*\*: (.*)", await response_text(answer))[1])
        await stage.member.click(answer.message, "B")
        answer = await stage.member.click(answer.message, "Another")
    assert sorted(seen[:3]) == sorted(seen[3:]) == ["What now?", "Who?", "Why?"]


async def test_a_member_may_vote_so_often_a_day(stage):
    services = stage.client.services
    stage.client.services = replace(services, blind_tests=replace(services.blind_tests, per_day=3))
    invitation, _ = await compared(stage)
    for _ in range(3):
        await vote(stage, stage.member, invitation, "A")
    made = len(stage.engine.requests)
    answer = await stage.member.click(invitation, "Compare")
    assert "voted 3 times" in await response_text(answer)
    assert len(stage.engine.requests) == made
    await vote(stage, stage.moderator, invitation, "A")


async def test_an_open_comparison_and_the_invitation_outlive_a_restart(tmp_path):
    async with on_stage(tmp_path, engine=FakeEngine(takes)) as stage:
        for _ in range(2):
            install(stage.store)
        invitation, _ = await compared(stage)
        answer = await stage.member.click(invitation, "Compare")
        before = await response_text(answer)
        open_one = answer.message
    async with on_stage(tmp_path, engine=FakeEngine(takes)) as stage:
        again = await stage.member.click(invitation, "Compare")
        assert await response_text(again) == before and not stage.engine.requests, (
            "kept, not made anew"
        )
        seq = re.search(r"judge:(\d+)", str(open_one["components"]))[1]
        done = await stage.member.click(again.message, f"judge:{seq}:bad")
        assert "Your vote: **both bad**" in done.message["content"]
        counts = stage.store.comparisons.judgement_counts("ballast", "v2", None)
        assert counts.both_bad == 1, "the newest against the base model, since none speaks"


async def test_two_presses_at_once_make_one_comparison(stage):
    invitation, _ = await compared(stage)
    stage.engine.free.clear()
    first = await stage.member.click(invitation, "Compare")
    await until(lambda: len(stage.engine.requests) == 4)
    second = await stage.member.click(invitation, "Compare")
    assert "being written" in await response_text(second)
    stage.engine.free.set()
    assert "**A**" in await response_text(first) and len(stage.engine.requests) == 4


async def test_what_cannot_be_compared_is_refused_and_nobody_is_asked(stage):
    for options, words in (
        ({"version": "v9"}, "ballast has no version v9."),
        ({"version": "v1"}, "Both are v1."),
        ({"persona": "oda"}, "Oda Marrow has no second version to compare."),
    ):
        answer = await stage.moderator.slash(QUAY, "finetune compare", **options)
        assert words in await response_text(answer)
    for command in ("finetune compare", "finetune judgement"):
        with pytest.raises(SandboxRefusal, match="permission"):
            await stage.member.slash(QUAY, command)
    assert not any("Which" in message["content"] for message in stage.sandbox.messages(QUAY))


async def test_versions_can_be_named_and_members_left_alone(stage):
    answer = await stage.moderator.slash(
        OFFICE, "finetune compare", persona="ballast", version="v1", against="base", invite=False
    )
    await response_text(answer)
    assert [request.adapter and request.adapter.version for request in stage.engine.requests] == [
        "v1",
        None,
    ]
    assert not any("Which" in message["content"] for message in stage.sandbox.messages(OFFICE))
    choices = await stage.moderator.autocomplete(QUAY, "finetune compare", "version", version="v")
    assert [choice["name"] for choice in choices] == ["v2", "v1"]
    choices = await stage.moderator.autocomplete(
        OFFICE, "finetune judgement", "against", against=""
    )
    assert choices == []


async def test_the_prompt_stands_alone_and_takes_no_server_s_lore_for_a_persona_of_all(stage):
    services = stage.client.services
    owner = guild_owner(stage.sandbox.guild_id, "ballast")
    services.lore.replace(
        owner, [Passage(owner, "z.md", "Zephyrine", "The zephyrine leaks at the rivet.")]
    )
    (services.home / "prompts").mkdir()
    (services.home / "prompts" / "general.txt").write_text("Does the zephyrine leak?")
    await stage.member.say(QUAY, "Does the zephyrine leak?")
    await stage.sees("Take")
    (talk,) = stage.engine.requests
    await compared(stage)
    asked = stage.engine.requests[1:]
    assert len(asked) == 2 and "z.md" in [hit.source for hit in talk.lore]
    for request in asked:
        assert [(turn.name, turn.text) for turn in request.turns] == [
            ("Guest", "Does the zephyrine leak?")
        ]
        assert "z.md" not in [hit.source for hit in request.lore]
        assert (
            request.sampling.speakers == ("Guest",) and request.guild_id == stage.sandbox.guild_id
        )


async def test_replies_that_cannot_be_compared_are_said_and_the_next_press_tries_again(stage):
    stage.engine.script = lambda request: ["Word for word."]
    answer = await stage.moderator.slash(QUAY, "finetune compare", invite=False)
    assert "say the same" in await response_text(answer)
    assert len(stage.engine.requests) == 6
    assert stage.store.comparisons.prompts_seen(int(stage.moderator.id), "ballast") == {}
    stage.engine.script = takes
    stage.engine.failure = AdapterError("The adapter is damaged.", "Train it again.")
    answer = await stage.moderator.slash(QUAY, "finetune compare", invite=False)
    assert str(stage.engine.failure) in await response_text(answer)
    stage.engine.failure = None
    answer = await stage.moderator.slash(QUAY, "finetune compare", invite=False)
    assert "**A**" in await response_text(answer)


async def test_a_silenced_persona_is_not_compared_here(stage):
    invitation, _ = await compared(stage)
    await stage.moderator.slash(QUAY, "persona mute")
    answer = await stage.member.click(invitation, "Compare")
    assert "silenced Ballast" in await response_text(answer)
    before = len(stage.sandbox.messages(QUAY))
    answer = await stage.moderator.slash(QUAY, "finetune compare")
    assert "silenced Ballast" in await response_text(answer)
    await stage.moderator.slash(QUAY, "persona unmute")
    await stage.moderator.slash(QUAY, "moderation age", persona="ballast", restricted=True)
    answer = await stage.moderator.slash(QUAY, "finetune compare")
    assert "is age-restricted, and this channel is not" in await response_text(answer)
    assert len(stage.sandbox.messages(QUAY)) == before, "nobody is invited"


async def test_whom_a_persona_does_not_answer_gets_no_replies_and_no_vote(stage):
    invitation, _ = await compared(stage)
    member = stage.member
    newcomer = stage.sandbox.member(NEWCOMER)
    shown = {}
    for who in (member, newcomer):
        shown[who] = await who.click(invitation, "Compare")
        await response_text(shown[who])
    requests = len(stage.engine.requests)
    await stage.moderator.slash(QUAY, "moderation block", member=member.id)
    await set_role(stage, "talk")
    for who, words in (
        (member, "does not answer you here"),
        (newcomer, "You may not talk with personas here"),
    ):
        voted = await who.click(shown[who].message, "B")
        assert voted.ephemeral and words in await response_text(voted)
        again = await who.click(invitation, "Compare")
        assert again.ephemeral and words in await response_text(again)
    assert len(stage.engine.requests) == requests
    assert stage.store.comparisons.voted("ballast") == []
    await stage.moderator.slash(QUAY, "moderation unblock", member=member.id)
    done = await member.click(shown[member].message, "B")
    assert "Your vote: **B**." in done.message["content"]


async def test_the_longest_replies_fit_a_message(stage):
    stage.engine.script = lambda request: [f"{next(NUMBERS)} ", "long words\n" * 400]
    home = stage.client.services.home
    (home / "prompts").mkdir()
    (home / "prompts" / "general.txt").write_text("x" * 300)
    invitation, own = await compared(stage)
    assert len(own.message["content"]) <= 2000 and "x" * 300 in own.message["content"]
    _, after, _ = await vote(stage, stage.member, invitation, "Both bad")
    assert len(after) <= 2000 and "B was **v" in after


# ----------------------------------------------------------------------------- what moderators read


async def judgement(stage, **options):
    answer = await stage.moderator.slash(QUAY, "finetune judgement", **options)
    words = await response_text(answer)
    assert answer.ephemeral
    return words


async def test_a_judgement_counts_and_says_what_is_missing(stage):
    invitation, _ = await compared(stage)
    elsewhere = NewBlindComparison(
        77, "ballast", 5, "p", "Hello?", "v1", "v2", "one", "other", 1, 2
    )
    stage.store.comparisons.vote(stage.store.comparisons.show(elsewhere, 1.0).seq, 5, "a", 2.0)
    assert "0 votes by 0 members" in await judgement(stage), "another server's are not read"
    for choice in ("A", "Tie", "Both bad"):
        await vote(stage, stage.member, invitation, choice)
    words = await judgement(stage)
    assert "**Ballast: v2 against v1**\n3 votes by 1 member:" in words
    assert "1 tie, 1 time both bad" in words
    assert re.search(r"\*\*Ruling: open\.\*\* 0 members .*10 are needed", words)
    turned = await judgement(stage, version="v1", against="v2")
    assert "**Ballast: v1 against v2**" in turned
