"""What calls a persona while the bot's process is dead is answered once, also over a kill in the middle
of that.
"""

import asyncio

from bot.demo_guild import MODERATOR
from tests.chaos.conversation import conversation, wait_for

INN = "the-damp-lantern"
MISSED = 3
CONNECT_TIMEOUT_S = 60.0


async def kill(process):
    process.kill()
    await asyncio.to_thread(process.join)


async def test_mentions_said_to_a_killed_bot_are_answered_once_over_a_further_kill():
    async with conversation(7) as talk:

        def answers(number):
            texts = [message["content"] for message in talk.sandbox.messages(INN)]
            return sum(f"I hear: missed {number}." in text for text in texts)

        member = talk.sandbox.member(MODERATOR)
        process = talk.start_bot()
        await wait_for(lambda: talk.is_connected, CONNECT_TIMEOUT_S)
        await member.say(INN, "@Understudy hello")
        await wait_for(
            lambda: "I hear: hello" in str(talk.sandbox.messages(INN)), CONNECT_TIMEOUT_S
        )
        await talk.settle(process)
        await kill(process)
        for number in range(MISSED):
            await member.say(INN, f"@Understudy missed {number}")
        process = talk.start_bot()
        await wait_for(lambda: any(map(answers, range(MISSED))), CONNECT_TIMEOUT_S)
        await kill(process)
        for _ in range(2):
            process = talk.start_bot()
            await wait_for(lambda: talk.is_connected, CONNECT_TIMEOUT_S)
            await wait_for(lambda: all(map(answers, range(MISSED))), CONNECT_TIMEOUT_S)
            await talk.settle(process)
            await talk.stop_bot(process)
        assert [answers(number) for number in range(MISSED)] == [1] * MISSED
        talk.was_killed = True
        talk.check()
        assert talk.outcome.is_clean, str(talk.outcome)
