"""People under pseudonyms: stable, without collisions, wherever their names occur; the persona and
its world stay.
"""

import pytest

from personas.home.pseudonyms import INVENTED_NAMES
from personas.schemas.chat import Persona
from trainer.anonymise.anonymiser import Anonymiser
from trainer.anonymise.name_detector import NameDetector
from trainer.anonymise.surrogates import assign_pseudonyms, non_speaker_pseudonym
from trainer.sources.conversation import Conversation, SourceMessage, SourceSpeaker

ADA = Persona("ada", "Ada Lace")
PERSONA = SourceSpeaker("ada", ("Ada Lace",), is_persona=True)
MIRA = SourceSpeaker("11", ("Mira", "mira_wet"))
BO = SourceSpeaker("12", ("bo the builder",))
KEY = b"k" * 32


def talk(*lines: tuple[SourceSpeaker, str]) -> Conversation:
    return Conversation.of(
        [SourceMessage(who, text, "1") for who, text in lines], "talk.json", "own-writing"
    )


def anonymiser(*conversations: Conversation, keep: tuple[str, ...] = ()) -> Anonymiser:
    """One that knows the people of these conversations and finds no others."""
    made = Anonymiser(KEY, persona=ADA, keep=keep, names=NameDetector())
    for conversation in conversations:
        made.register(conversation)
    return made


def said_of(names: tuple[str, ...], *texts: str, keep: tuple[str, ...] = ()) -> list[str]:
    """What the texts become when somebody of these names has spoken too, with `N` for their
    pseudonym.
    """
    somebody = SourceSpeaker("21", names)
    conversations = [talk((somebody, "so far")), *(talk((PERSONA, text)) for text in texts)]
    made = anonymiser(*conversations, keep=keep)
    pseudonym, *masked = (
        made.anonymise(conversation).messages[0] for conversation in conversations
    )
    return [message.text.replace(pseudonym.speaker.name, "N") for message in masked]


def test_names_mentions_and_nicknames_are_replaced_and_the_persona_stays():
    said = "MIRA, mira_wet, <@11> and <@!12>! Not admiral. <@99> knows Ada Lace, bo the Builder."
    conversation = talk((MIRA, "hello"), (BO, "hi"), (PERSONA, said))
    found = anonymiser(conversation).anonymise(conversation)
    mira, bo, ada = (message.speaker.name for message in found.messages)
    assert (
        found.messages[2].text
        == f"{mira}, {mira}, {mira} and {bo}! Not admiral. someone knows Ada Lace, {bo}."
    )
    assert {mira, bo} < set(INVENTED_NAMES) and ada == "Ada Lace"
    assert found.messages[0].speaker.names == (mira,)


@pytest.mark.parametrize(
    ("names", "texts", "become"),
    [
        (("sleepy_Tomas",), ("so sleepy", "Sleepy? Rest then, Tomas."), ("so sleepy", "Sleepy? Rest then, N.")),
        (("I",), ("I am I", "I see, @I. Not Ida?"), ("I am I", "I see, @N. Not Ida?")),
        (("Alice Kerr",), ("Alice's hat, Alices hat, ALICE, aliceee, Miss Kerr",), ("N's hat, Ns hat, N, N, Miss N",)),
        (("xX_DarkWolf_Xx",), ("darkwolf is no dark wolf",), ("N is no dark wolf",)),
        (("Jean-Luc Mora",), ("jean luc mora, Jean-Luc",), ("N, N",)),
        (("Jean-Luc O'Brien",), ("obrien said", "O'BRIEN, o’brien", "JEANLUC OBRIEN"), ("N said", "N, N", "N")),
        (("D’Arcy",), ("darcy's, d'arcy",), ("N's, N",)),
        (("O'Ring",), ("o ring, oring", "the well-known"), ("N, N", "the well-known")),
        (("Will",), ("I will ask Will. hey will! Will you?",), ("I will ask N. hey N! Will you?",)),
        (("Hope",), ("I hope so; no hope", "I told Hope's brother"), ("I hope so; no hope", "I told N's brother")),
        (("Nguyễn Thị Hoa",), ("nguyen thi hoa, NGUYỄN", "chị hoa ơi, hoa đẹp"), ("N, N", "chị N ơi, hoa đẹp")),
        (("Tuấn",), ("tuan oi", "anh Tuấn ơi", "tuần sau"), ("N oi", "anh N ơi", "tuần sau")),
        (("Hà",), ("ha ha", "chị Hà"), ("ha ha", "chị N")),
        (("王小明",), ("我问王小明了", "小明去哪", "老王和王哥"), ("我问N了", "N去哪", "N和N哥")),
        (("李丽",), ("丽姐、丽丽", "美丽的花"), ("N姐、N", "美丽的花")),
        (("田中太郎",), ("田中さんと太郎くん",), ("NさんとNくん",)),
        (("ケン",), ("ケンとケンタッキー",), ("Nとケンタッキー",)),
        (("月亮",), ("月亮出来了", "月亮姐来了", "@月亮"), ("月亮出来了", "N姐来了", "@N")),
    ],
)  # fmt: skip
def test_a_name_is_found_as_people_say_it_and_words_stay_words(names, texts, become):
    assert said_of(names, *texts) == list(become)


def test_a_name_in_lore_stays_unless_somebody_in_the_log_has_it():
    texts = ("Old Brannock owns Saltmarket Row.", "Mira said so.")
    assert said_of(("Mira",), *texts, keep=("Brannock", "Saltmarket Row", "Mira")) == [
        texts[0],
        "N said so.",
    ]


def test_a_part_of_a_name_that_lore_has_too_stays():
    assert said_of(("Mira Brannock",), "Brannock's inn. Mira Brannock?", keep=("Brannock",)) == [
        "Brannock's inn. N?"
    ]


def test_a_role_is_nobody_and_its_word_stays():
    conversation = talk((SourceSpeaker("user", ("User",)), "hi"), (PERSONA, "Each User is a user."))
    assert (
        anonymiser(conversation).anonymise(conversation).messages[1].text == "Each User is a user."
    )


def test_people_who_are_not_included_are_replaced_where_others_name_them():
    conversation = talk((PERSONA, "Quillon said no."))
    conversation.unheard = (SourceSpeaker("31", ("Quillon",)),)
    assert "Quillon" not in anonymiser(conversation).anonymise(conversation).messages[0].text


def test_what_came_with_a_talk_and_the_answer_that_was_liked_less_are_masked_too():
    conversation = talk((MIRA, "hi"), (PERSONA, "yes"))
    conversation.system = "You know Mira."
    conversation.rejected = "Mira? mail me@quill.example.com"
    masked = anonymiser(conversation).anonymise(conversation)
    assert "Mira" not in masked.system + masked.rejected and "quill" not in masked.rejected


def test_general_knowledge_keeps_its_names_and_loses_what_has_a_form():
    conversation = talk(
        (
            SourceSpeaker("user", ("user",)),
            "Who was Ada Byron? Write to a.byron@engine.example.net.",
        )
    )
    made = anonymiser()
    text = made.mask_patterns(conversation).messages[0].text
    assert text.startswith("Who was Ada Byron? Write to ") and "engine" not in text
    assert made.counts == {"EMAIL_ADDRESS": 1}


def test_the_same_value_becomes_the_same_everywhere_and_another_under_another_key():
    text = "mail me@quill.example.com or ring 212-555-0147, 198.51.100.7, @quillon_9"
    one, again = (Anonymiser(KEY, names=NameDetector()).anonymise_text(text) for _ in range(2))
    other = Anonymiser(b"o" * 32, names=NameDetector()).anonymise_text(text)
    assert one == again != other
    assert not any(
        value in one for value in ("quill.example", "212-555-0147", "198.51.100.7", "quillon_9")
    )


def test_strangers_have_pseudonyms_word_for_word_and_are_counted():
    class Finder:
        name = "a finder"

        def find(self, text: str) -> list[tuple[str, int, int, float]]:
            return [("PERSON", text.index("Orla"), text.index(" left"), 1.0)]

    made = Anonymiser(KEY, names=NameDetector(tagger=Finder()))
    whole = made.anonymise_text("So Orla Quaid left.")
    part = made.anonymise_text("So Orla left.")
    assert whole.split()[1] == part.split()[1] and len(whole.split()) == 4
    assert (
        made.non_speakers == {"orla quaid": 1, "orla": 1}
        and made.names.description == "tagger (a finder)"
    )


def test_a_stranger_never_bears_the_name_of_somebody_in_the_log():
    taken = INVENTED_NAMES[0].casefold()
    assert all(
        non_speaker_pseudonym(f"somebody{n}", KEY, {taken}) != INVENTED_NAMES[0] for n in range(500)
    )


def test_a_pseudonym_stays_when_others_join_and_differs_in_another_data_set():
    few = assign_pseudonyms([MIRA, BO], KEY)
    many = assign_pseudonyms(
        [MIRA, BO, *(SourceSpeaker(f"x{n}", (str(n),)) for n in range(100))], KEY
    )
    assert few.items() <= many.items()
    others = [assign_pseudonyms([MIRA], bytes([n]) * 32)["11"] for n in range(8)]
    assert len(set(others)) > 1


def test_no_two_members_share_a_pseudonym_however_many_there_are():
    members = 3 * len(INVENTED_NAMES)
    given = assign_pseudonyms(
        [SourceSpeaker(str(n), (str(n),)) for n in range(members)],
        KEY,
        {INVENTED_NAMES[0].casefold()},
    )
    assert len(set(given.values())) == members and INVENTED_NAMES[0] not in given.values()


class Pointing:
    """Stands in for the tagger: takes a word for a person."""

    name = "a pointer"

    def find(self, text: str) -> list[tuple[str, int, int, float]]:
        return (
            [("PERSON", text.index("nick"), text.index("nick") + 4, 1.0)] if "nick" in text else []
        )


def test_a_known_name_of_two_words_is_one_person_where_a_part_of_it_is_taken_for_one():
    somebody = SourceSpeaker("21", ("my nick",))
    made = Anonymiser(KEY, names=NameDetector(tagger=Pointing()))
    conversation = talk((somebody, "so far"))
    made.register(conversation)
    pseudonym = made.anonymise(conversation).messages[0].speaker.name
    assert made.anonymise_text("so my nick said") == f"so {pseudonym} said"
    assert made.anonymise_text("by my wit") == "by my wit"
