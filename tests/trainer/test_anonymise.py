"""Pseudonyms: stable, without collisions, everywhere but on the persona."""

import pytest

from personas.contracts import Persona, TrainingRequest
from trainer.anonymise import assign, dataset_key, pseudonymise
from trainer.conversation import Conversation, Message, Speaker
from trainer.names import NAMES

ADA = Persona("ada", "Ada Lace")
PERSONA = Speaker("ada", ("Ada Lace",), is_persona=True)
MIRA, BO = Speaker("11", ("Mira", "mira_wet")), Speaker("12", ("bo the builder",))
KEY = b"k" * 32


def talk(*lines: tuple[Speaker, str]) -> Conversation:
    return Conversation.of([Message(who, text, "1") for who, text in lines], "talk.json", "own-writing")


def test_names_mentions_and_nicknames_are_replaced_and_the_persona_stays():
    said = "MIRA, mira_wet, <@11> and <@!12>! Not admiral. <@99> knows Ada Lace, bo the Builder."
    (found,) = pseudonymise([talk((MIRA, "hello"), (BO, "hi"), (PERSONA, said))], KEY, ADA)
    mira, bo, ada = (message.speaker.name for message in found.messages)
    assert found.messages[2].text == f"{mira}, {mira}, {mira} and {bo}! Not admiral. someone knows Ada Lace, {bo}."
    assert {mira, bo} < set(NAMES) and ada == "Ada Lace"
    assert found.messages[0].speaker.names == (mira,)


def test_the_part_of_a_handle_by_which_others_call_somebody_is_replaced_and_a_common_word_is_not():
    handle = Speaker("13", ("sleepy_Tomas",))
    (found,) = pseudonymise([talk((handle, "so sleepy"), (PERSONA, "Sleepy? Rest then, Tomas."))], KEY, ADA)
    assert found.messages[1].text == f"Sleepy? Rest then, {found.messages[0].speaker.name}."


def test_short_names_are_looked_for_in_mentions_only():
    short = Speaker("13", ("I",))
    (found,) = pseudonymise([talk((short, "I am I"), (PERSONA, "I see, @I. Not @Ida?"))], KEY, ADA)
    name = found.messages[0].speaker.name
    assert [message.text for message in found.messages] == ["I am I", f"I see, @{name}. Not @Ida?"]


def test_a_pseudonym_stays_when_others_join_and_differs_in_another_data_set():
    few = assign([MIRA, BO], KEY, ADA)
    many = assign([MIRA, BO, *(Speaker(f"x{n}", (str(n),)) for n in range(100))], KEY, ADA)
    assert few.items() <= many.items()
    others = [assign([MIRA], bytes([n]) * 32, ADA)["11"] for n in range(8)]
    assert len(set(others)) > 1


@pytest.mark.parametrize("members", [len(NAMES), 3 * len(NAMES)])
def test_no_two_members_share_a_pseudonym_however_many_there_are(members):
    given = assign([Speaker(str(n), (str(n),)) for n in range(members)], KEY, Persona("x", f"Sir {NAMES[0]}"))
    assert len(set(given.values())) == members and NAMES[0] not in given.values()


def test_the_key_depends_on_persona_and_data_set_only():
    def key(**fields: str) -> bytes:
        return dataset_key(TrainingRequest.model_validate({"job_name": "a", "persona": "ada", **fields}))

    assert key() == key(job_name="b", recipe="other")
    assert len({key(), key(persona="bo"), key(dataset="harbour"), key(dataset_path="harbour")}) == 4


def test_the_names_are_as_many_as_they_look():
    assert len(set(NAMES)) == len(NAMES) >= 115
