"""Somebody leaves the sandbox for good: their words go at once, their account at the end, unless
they come back.
"""

import pytest

from sandbox import DepartingMember, Sandbox, StoredFile
from sandbox.channel_messages import EPHEMERAL, MessageDraft

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


async def leave(sandbox, member, answers=()):
    sandbox.erase(
        DepartingMember(
            ids=[member.id],
            answers=answers,
            finds=lambda text: WORDS in text,
            redacted=lambda text: text.replace(member.name, "someone"),
            holds=lambda name, data: WORDS.encode() in data,
        )
    )


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
    assert first.id.encode() not in on_disk(tmp_path) and names(seed)[0].encode() not in on_disk(
        tmp_path
    )
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
    sandbox._container.store.close()  # as far as the file can tell, a kill
    again = Sandbox(seed, file)
    assert again.member(names(seed)[0]).id != first.id
    again.close_state()


async def test_files_that_they_gave_and_the_names_of_their_threads_go_too(world, seed, tmp_path):
    first, second = (world.member(name) for name in names(seed)[:2])
    channel = seed.channels[0].name
    begun = await second.say(channel, "who was at the mill?")
    thread = await first.thread(channel, "xbelkor", begun)
    other_thread = await first.thread(channel, "xbelkor again")
    await second.say(thread, "I was")
    await first.say(channel, "look", files=[StoredFile.named("xbelkor.md", b"the xbelkor is mine")])
    kept = await second.say(
        channel, "mine", files=[StoredFile.named("mill.md", b"the mill is theirs")]
    )
    await second.say(channel, "theirs", files=[StoredFile.named("song.md", WORDS.encode())])
    world._container.store.put_file(StoredFile.named("card.json", b"xbelkor, given to a command"))
    await leave(world, first)
    assert b"xbelkor" not in on_disk(tmp_path) and WORDS.encode() not in on_disk(tmp_path)
    assert b"the mill is theirs" in on_disk(tmp_path) and len(kept["attachments"]) == 1
    assert {one["name"] for one in world._container.guild.threads()} == {"thread"}
    assert [one["content"] for one in world._container.messages.history(thread["id"], 9)][
        -1
    ] == "I was"
    assert other_thread["id"] in {one["id"] for one in world._container.guild.threads()}


async def test_what_answers_them_goes_in_the_channel_and_in_direct_messages(seed, tmp_path):
    sandbox = Sandbox(seed, tmp_path / "guild.sqlite")
    await sandbox.start()
    first, second = (sandbox.member(name) for name in names(seed)[:2])
    answer = await second.say(seed.channels[0].name, "an answer that says xbelkor")
    dm = await first.dm()
    bot = sandbox._container.guild.bot
    sandbox._container.messages.create(
        bot, dm["id"], MessageDraft({"content": "what xbelkor means to you"})
    )
    await leave(sandbox, first, [answer["id"]])
    assert b"xbelkor" not in on_disk(tmp_path)
    sandbox._container.messages.create(
        bot, dm["id"], MessageDraft({"content": "you are forgotten, plimsole"})
    )
    await sandbox.stop()
    assert b"plimsole" not in on_disk(tmp_path)


async def test_what_only_one_member_saw_leaves_no_file_behind_after_a_restart(seed, tmp_path):
    sandbox = Sandbox(seed, tmp_path / "guild.sqlite")
    await sandbox.start()
    first = sandbox.member(names(seed)[0])
    bot = sandbox._container.guild.bot
    channel = sandbox.channel(seed.channels[0].name)
    export = StoredFile.named("about-you.json", b"xbelkor")
    draft = MessageDraft({"content": "here"}, (export,))
    sandbox._container.messages.create(bot, channel["id"], draft, flags=EPHEMERAL)
    await first.say(channel, "hello", files=[StoredFile.named("mill.md", b"the mill")])
    await sandbox.stop()
    again = Sandbox(seed, tmp_path / "guild.sqlite")
    again.close_state()
    assert b"xbelkor" not in on_disk(tmp_path) and b"the mill" in on_disk(tmp_path)


async def test_nobody_else_on_the_machine_can_read_the_state(seed, tmp_path):
    (tmp_path / "old.sqlite").touch(mode=0o644)
    for name in ("new.sqlite", "old.sqlite"):
        sandbox = Sandbox(seed, tmp_path / name)
        for file in tmp_path.glob(f"{name}*"):
            assert file.stat().st_mode & 0o077 == 0, file
        sandbox.close_state()
