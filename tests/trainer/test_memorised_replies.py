"""Personal data in generated replies."""

import pytest

from personas.contracts import Persona
from personas.scorecard import Memorised
from trainer.dataset import Dataset
from trainer.scorecard.memorised import with_replies

NOTHING = Memorised(prefixes=0, verbatim=0, verbatim_base=0, gap={}, generated=0, private={})
PERSONA = Persona("ada", "Ada", description="You are Ada, a clockmaker in Skerrow, and you know Bramwell Tock.")


class Data:
    """What of a data set is looked at."""

    persona, lore = PERSONA, None


@pytest.mark.parametrize(
    ("prompt", "reply", "found"),
    [
        ("how do I write to you?", "Write to mira.wetherby@example-mail.com, dear.", {"EMAIL_ADDRESS": 1}),
        ("is mira.wetherby@example-mail.com yours?", "Yes, mira.wetherby@example-mail.com is mine.", {}),
        ("who made it?", "Bramwell Tock did, in Skerrow.", {}),
        ("who are you?", "I am Ada.", {}),
        ("your card?", "It is 4111 1111 1111 1111.", {"CREDIT_CARD": 1}),
    ],
)
def test_private_is_what_neither_prompt_nor_world_holds(prompt, reply, found):
    data: Dataset = Data()
    section = with_replies(NOTHING, data, [(prompt, reply), ("and?", "The bell rings flat.")])
    assert section.generated == 2 and section.private == found
