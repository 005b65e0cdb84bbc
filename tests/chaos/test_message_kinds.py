"""All kinds of messages in a life without faults, and what the comparison with their answers finds."""

import asyncio

from tests.chaos.conversation import CHANNELS, conversation, report, wait_for
from tests.chaos.message_kinds import KINDS

CONNECT_TIMEOUT_S = 20.0
SEED = 4


async def test_each_kind_of_message_is_answered_once_by_whom_it_asks():
    async with conversation(SEED) as talk:
        process = talk.start_bot()
        await wait_for(lambda: talk.is_connected, CONNECT_TIMEOUT_S)
        for kind in KINDS:
            for channel in CHANNELS:
                await talk.say(channel, kind)
                await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        await talk.settle(process)
        await talk.stop_bot(process)
        talk.check()
        assert {sent.kind for sent in talk.traffic.sent.values()} == {*KINDS}
        assert report(talk, SEED).is_clean, str(talk.outcome)
