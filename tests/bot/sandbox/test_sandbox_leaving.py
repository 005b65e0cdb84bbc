"""Somebody leaves the sandbox for good: their words go at once, their account at the end, unless they come back."""

import pytest

from bot.sandbox import Sandbox

WORDS = "the brass heron of Tallowmere"


@pytest.fixture
async def world(seed, tmp_path):
    sandbox = Sandbox(seed, tmp_path / "guild.sqlite")
    await sandbox.start()
    yield sandbox
    await sandbox.stop()


def names(seed):
    return [member.name for member in seed.members]


def on_disk(folder):
    return b"".join(file.read_bytes() for file in folder.iterdir())


async def leave(sandbox, member):
    sandbox.forget([member.id], lambda text: WORDS in text, lambda text: text.replace(member.name, "someone"))


async def test_what_they_wrote_and_what_answers_it_goes_at_once(world, seed, tmp_path):
    first, second = (world.member(name) for name in names(seed)[:2])
    channel = seed.channels[0].name
    said = await first.say(channel, WORDS)
    await second.say(channel, "oh?", reply_to=said)
    await second.say(channel, f"did you hear? {WORDS}")
    kept = await second.say(channel, "good evening")
    mark = len(world.events)
    await leave(world, first)
    assert [message["id"] for message in world.messages(channel)] == [kept["id"]]
    assert [kind for kind, _ in world.events[mark:]] == ["delete"] * 3, "the bot hears of it too"
    assert WORDS.encode() not in on_disk(tmp_path)


async def test_the_account_goes_when_the_sandbox_ends(seed, tmp_path):
    sandbox = Sandbox(seed, tmp_path / "guild.sqlite")
    await sandbox.start()
    first = sandbox.member(names(seed)[0])
    dm = await first.dm()
    await first.say(dm, "hello")
    await leave(sandbox, first)
    assert sandbox.member(first.name).id == first.id
    await sandbox.stop()
    assert first.id.encode() not in on_disk(tmp_path) and names(seed)[0].encode() not in on_disk(tmp_path)
    again = Sandbox(seed, tmp_path / "guild.sqlite")
    assert again.member(names(seed)[0]).id != first.id, "the cast is made anew, as somebody else"
    again.close_state()


async def test_whoever_speaks_again_stays(seed, tmp_path):
    sandbox = Sandbox(seed, tmp_path / "guild.sqlite")
    await sandbox.start()
    first = sandbox.member(names(seed)[0])
    await leave(sandbox, first)
    await first.say(seed.channels[0].name, "I am back")
    await sandbox.stop()
    again = Sandbox(seed, tmp_path / "guild.sqlite")
    assert again.member(names(seed)[0]).id == first.id
    again.close_state()


async def test_after_a_crash_the_account_goes_at_the_next_start(seed, tmp_path):
    file = tmp_path / "guild.sqlite"
    sandbox = Sandbox(seed, file)
    first = sandbox.member(names(seed)[0])
    await leave(sandbox, first)
    sandbox._world.store.close()  # as far as the file can tell, a kill
    again = Sandbox(seed, file)
    assert again.member(names(seed)[0]).id != first.id
    again.close_state()
