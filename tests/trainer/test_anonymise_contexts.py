"""Names that the words around them decide, addresses whose parts stand apart, and near misses of
both.
"""

import pytest

from trainer.anonymise.anonymiser import Anonymiser
from trainer.anonymise.capitalisation import CapitalisationStats
from trainer.anonymise.name_detector import NameDetector, find_names_by_cues
from trainer.anonymise.ner_postprocess import refine_findings
from trainer.anonymise.spans import EntitySpan

KEY = b"k" * 32
NAMES = """
    call me |bettina| please
    hi all, my name is |oskar lindqvist|, i fix bikes
    ich heiße |torben|, hallo
    me llamo |ximena| y tengo sed
    |Odile|'s daughter has the key
    that is |radek|'s brother
    a woman named |Ilse Vandam| rang twice
    He was called |Tibor Halász|, we think
    the |Fontaine| novel is out of print
    |Park| said nothing. |White| agreed at once.
    the |Okafor|s from next door sold the boat
    the |Okafor| family moved out
"""
NO_NAMES = """
    call me back tomorrow, call me crazy
    my name is on the list, my name is wrong
    yesterday's daughter paper, the ship's father clock
    a film named Blue Harbour, the band called Salt
    the French novel, the Victorian novel, the graphic novel
    the park said closed. Rice is cheap.
    the others from next door, the Alps are near
"""
ADDRESSES = """
    meet at |the corner of Alder Street and Second Avenue| at ten
    roadworks, |corner of alder street and second avenue| again
    |Alder Street and Quarry Road| are closed
    an |der Ecke Lindenstraße/Ahornweg| steht sie
    en |la esquina de Calle Mayor con Calle Luna|
    dans la |rue des Lilas, au numéro 12|
    die |Lindenstraße, Hausnummer 14|
    i |Storgata, nummer 5|
    στην |οδό Ερμού, αριθμός 12|
    it is |number 14, Harbour Road|, blue door
    |12 Alder Street, LEEDS|
    send it to |4218 Juniper Lane, Apt 7, Tallbrook, OR 97401|.
    send it to |4218 Juniper Lane, Tallbrook, OR 97401|
    |12 Alder Street, Hamburg|.
"""
NO_ADDRESSES = """
    around the corner of time and space
    a corner of Hope and Glory
    Notting Hill and Golders Green
    In 1969, Abbey Road came out
    number 14, please
    the street, number one
"""


def anonymiser():
    return Anonymiser(KEY, names=NameDetector())


def lines(block):
    return [line.strip() for line in block.strip().splitlines()]


def marked(line):
    """Split `a |b| c` into the text and what is marked."""
    parts = line.split("|")
    return "".join(parts), parts[1::2]


@pytest.mark.parametrize("line", lines(NAMES))
def test_a_name_is_found_by_what_is_said_around_it(line):
    text, wanted = marked(line)
    spans = find_names_by_cues(text, sure=True)
    assert sorted({(span.start, text[span.start : span.end]) for span in spans}) == [
        (text.index(name), name) for name in wanted
    ]


@pytest.mark.parametrize("text", lines(NO_NAMES))
def test_words_in_the_same_place_are_no_names(text):
    assert list(find_names_by_cues(text, sure=True)) == []


@pytest.mark.parametrize("line", lines(ADDRESSES))
def test_an_address_is_found_whose_parts_stand_apart(line):
    text, [wanted] = marked(line)
    [found] = [one for one in anonymiser().find_entities(text) if one.kind == "STREET_ADDRESS"]
    assert text[found.start : found.end].strip(" .") == wanted


@pytest.mark.parametrize("text", lines(NO_ADDRESSES))
def test_corners_and_numbers_of_other_things_stay(text):
    assert [one for one in anonymiser().find_entities(text) if one.kind == "STREET_ADDRESS"] == []


def test_an_address_goes_on_behind_the_marks_of_a_quotation():
    text = "> send it to\n> 12 Alder Street\n> Leeds LS1 4AP\nok"
    assert anonymiser().anonymise_text(text) == "> send it to\n> [address]\nok"
    comparison = "12 > 10 Alder\n3 > 2"
    assert anonymiser().anonymise_text(comparison) == comparison


def test_a_town_after_a_street_needs_the_end_of_the_clause():
    text = "12 Alder Street, Anna said, and 14 Alder Street, then left"
    found = [
        text[one.start : one.end]
        for one in anonymiser().find_entities(text)
        if one.kind == "STREET_ADDRESS"
    ]
    assert found == ["12 Alder Street", "14 Alder Street"]


@pytest.mark.parametrize(
    ("text", "people"),
    [
        ("Odile, Radek, Tibor came", ["Odile", "Radek", "Tibor"]),
        ("Odile, Radek came", ["Odile", "Radek"]),
        ("Lindqvist, Oskar came", ["Lindqvist, Oskar"]),
        ("Odile Fontaine, Jr. came", ["Odile Fontaine, Jr."]),
    ],
)
def test_commas_of_a_list_of_names_stay(text, people):
    span = EntitySpan("PERSON", 0, len(text) - len(" came"), 2)
    found = refine_findings(text, [span], CapitalisationStats())
    assert sorted({text[one.start : one.end] for one in found}) == sorted(people)


@pytest.mark.parametrize(
    ("found", "person"),
    [
        ("Contact Bjarte", "Bjarte"),
        ("Email Oskar Lindqvist", "Oskar Lindqvist"),
        ("Will Lindqvist", "Will Lindqvist"),
        ("Contact bjarte", "Contact bjarte"),
    ],
)
def test_a_common_word_before_a_name_is_no_part_of_it(found, person):
    span = EntitySpan("PERSON", 0, len(found), 2)
    people = list(refine_findings(f"{found} today", [span], CapitalisationStats()))
    assert [found[one.start : one.end] for one in people] in ([person], [])
    assert people or found == "Contact bjarte"


@pytest.mark.parametrize("word", ["Awarded Salesperson", "Animation", "Can", "Coach", "Granny"])
def test_capitalised_words_are_no_people(word):
    text = f"{word} of the year"
    assert (
        list(refine_findings(text, [EntitySpan("PERSON", 0, len(word), 2)], CapitalisationStats()))
        == []
    )


@pytest.mark.parametrize(
    ("text", "people"),
    [
        ("はじめまして、佐藤美咲と申します。", ["佐藤美咲"]),
        ("健太くんと山本さんに会った。", ["健太", "山本"]),
        ("担当は高橋です。", ["高橋"]),
        ("千葉県へ行く。林の中。お母さんと店員さん。", []),
        ("제 이름은 김하늘입니다.", ["김하늘"]),
        ("민수야, 이서준 씨도 왔어요.", ["민수", "이서준"]),
        ("박 과장님이 오셨어요.", ["박"]),
        ("오늘은 날씨가 좋네요. 이것은 지우개예요.", []),
    ],
)
def test_japanese_and_korean_names(text, people):
    assert [text[one.start : one.end] for one in anonymiser().find_entities(text)] == people
