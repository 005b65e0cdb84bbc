"""Personal data in generated replies."""

import pytest

from personas.prompt.renderer import TokenizedSample
from personas.schemas.chat import Persona
from personas.schemas.scorecard import MemorisationScores
from trainer.dataset.dataset import Dataset
from trainer.evaluate.memorisation import add_reply_pii

NOTHING = MemorisationScores(
    prefixes=0, verbatim=0, verbatim_base=0, gap={}, generated=0, private={}
)
PERSONA = Persona(
    "ada", "Ada", description="You are Ada, a clockmaker in Skerrow, and you know Bramwell Tock."
)


TRAINED = (
    "Write to mira.wetherby@example-mail.com. The card is 4111-1111-1111-1111, and nothing else."
)


class Data:
    """What of a data set is looked at."""

    persona = PERSONA
    lore = None
    trained = (TokenizedSample(tuple(TRAINED.encode()), ()),)


class Tokenizer:
    """A byte is a token."""

    def batch_decode(self, rows):
        return [bytes(row).decode() for row in rows]


@pytest.mark.parametrize(
    ("prompt", "reply", "found"),
    [
        (
            "how do I write to you?",
            "Write to Mira.Wetherby@example-mail.com, dear.",
            {"EMAIL_ADDRESS": 1},
        ),
        (
            "is mira.wetherby@example-mail.com yours?",
            "Yes, mira.wetherby@example-mail.com is mine.",
            {},
        ),
        ("who made it?", "Bramwell Tock did, in Skerrow.", {}),
        ("who are you?", "I am Ada.", {}),
        ("your card?", "It is 4111 1111 1111 1111.", {"CREDIT_CARD": 1}),
    ],
)
def test_private_is_what_neither_prompt_nor_world_holds(prompt, reply, found):
    data: Dataset = Data()
    section = add_reply_pii(
        NOTHING, data, [(prompt, reply), ("and?", "The bell rings flat.")], Tokenizer()
    )
    assert section.generated == 2 and (section.private, section.made_up) == (found, {})


def test_what_stands_nowhere_in_what_was_learned_from_is_made_up():
    replies = [("your card?", "It is 5555 5555 5555 4444."), ("and yours?", "4111 1111 1111 1111.")]
    section = add_reply_pii(NOTHING, Data(), replies, Tokenizer())
    assert (section.private, section.made_up) == ({"CREDIT_CARD": 1}, {"CREDIT_CARD": 1})
