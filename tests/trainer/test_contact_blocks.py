"""Signatures, letterheads and cards: each line is read with what the others are; what has only
their shape stays.
"""

import re

import pytest

from benchmarks.studies.contact_blocks import development_blocks, held_out_blocks
from tests.trainer.test_crf_ner import phrases_of
from tools.name_tagger.synthetic_corpus import TEMPLATES_FOLDER
from trainer.anonymise.anonymiser import Anonymiser
from trainer.anonymise.contact_blocks import find_in_blocks
from trainer.anonymise.phone_numbers import find_phone_numbers
from trainer.anonymise.spans import EntitySpan

MARKED = re.compile(r"⟦([^⟧]+)⟧")


@pytest.fixture(scope="module")
def anonymiser():
    return Anonymiser(b"k" * 32)


def unmarked(text):
    return text.replace("⟦", "").replace("⟧", "")


def left_over(anonymiser, marked):
    """Returns the marked values that are not wholly replaced, and the other letters that are."""
    text = unmarked(marked)
    covered = set()
    for one in anonymiser.find_entities(text):
        covered |= set(range(one.start, one.end))
    wanted = set()
    missed = []
    shift = 0
    for match in MARKED.finditer(marked):
        span = range(match.start() - shift, match.start() - shift + len(match[1]))
        shift += 2
        wanted |= set(span)
        if not all(at in covered for at in span if text[at].isalnum()):
            missed.append(match[1])
    return missed, "".join(text[at] for at in sorted(covered - wanted) if text[at].isalnum())


BLOCKS = {
    "numbers named after": """Talk to you on Monday at 14:30.

Kind regards,

⟦Corinna Vael⟧

⟦44 Larkmoor Street⟧
⟦Suite 210⟧
⟦Ostwick, OH 44120⟧
⟦555 812 4410⟧ office
⟦555.812.4411⟧ - fax
⟦70 33 19 82⟧ (mobile)""",
    "danish": """Med venlig hilsen
⟦Signe Damgaard⟧
⟦Nørregade 12, 2. tv.⟧
⟦7100 Vejle⟧
Tlf. ⟦75 82 14 30⟧
Mobil ⟦31 22 48 90⟧""",
    "hungarian": """Üdvözlettel,
⟦Horváth Emese⟧
⟦Széchenyi utca 14. 2/3.⟧
⟦6720 Szeged⟧
⟦62 544 310⟧ (iroda)""",
    "greek script": """Με εκτίμηση,
⟦Ελένη Παπαδάκη⟧
⟦Ερμού 25⟧
⟦546 24 Θεσσαλονίκη⟧
Τηλ.: ⟦231 055 4210⟧""",
    "a card": "⟦Joost van der Meulen⟧ | ⟦Kerkstraat 17⟧ | ⟦7411 KB Deventer⟧ | ⟦0570 612 345⟧",
    "a label": "SHIP TO\n⟦WALTER PRESCOTT II⟧\n⟦9 HALBERD LANE⟧\n⟦FLAT 4⟧\n⟦DUNMOUTH⟧ ⟦DM4 7RT⟧",
    "a ticket": """Name: ⟦annika af lindholm⟧
Adress: ⟦Skolgatan 3 B⟧, ⟦582 28 Linköping⟧
Tfn: ⟦013-12 45 60⟧
Problem: the lamp""",
    "a mail quoted": """> ⟦Marta Wilk⟧ <⟦marta@example.org⟧>
> ⟦ul. Polna 8/3⟧
> ⟦61-772 Poznań⟧
> ⟦61 852 33 10⟧

no idea""",
    "a list": "who has a key\n- ⟦Tadeo Rivas⟧, ⟦934 55 21 08⟧\n- ⟦Ines Duarte⟧, ⟦22 605 41 73⟧",
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_replaced_line_by_line(name, anonymiser):
    missed, wrongly = left_over(anonymiser, BLOCKS[name])
    assert (missed, wrongly) == ([], "")


@pytest.mark.parametrize(
    "street",
    "Kossuth Lajos út 5.|Petőfi tér 3|Ermou 25|Leoforos Kifisias 118|Λεωφόρος Συγγρού "
    "44|Vestergade 7, st. th.|"
    "Storgatan 11|Kirkeveien 8|Mannerheimintie 14 A 7|Laugavegur 22|Prinsengracht 201|ul. Krótka "
    "8/3|Školní 114/6|"
    "Strada Florilor nr. 9|Arch. Makariou III 14".split("|"),
)
def test_streets_of_many_countries_under_a_name(street, anonymiser):
    text = f"please send it to\n⟦Nadia Wexler⟧\n⟦{street}⟧\n⟦10432 Marvik⟧\nthanks"
    assert left_over(anonymiser, text)[0] == []


@pytest.mark.parametrize(
    "text",
    [
        "see you there\n- ⟦corinna vael⟧",
        "cheers,\n⟦tobias⟧",
        "hi, i'm ⟦annika lindholm⟧ and i paint",
        "Name: ⟦joost van der meulen⟧\nTicket: 4",
        "ask ⟦Joost van der Meulen⟧ about the van",
        "we met ⟦Walter Prescott III⟧ there",
        "with ⟦Maria de los Reyes⟧ and ⟦Otto von Hagen⟧",
    ],
)
def test_names_in_small_letters_with_particles_and_ordinals(text, anonymiser):
    assert left_over(anonymiser, text) == ([], "")


@pytest.mark.parametrize(
    "text",
    """Puh. ⟦044 312 8890⟧|Tlf: ⟦31 22 48 90⟧|Κιν.: ⟦694 555 2213⟧|Natel ⟦079 555 31 24⟧|T: ⟦555.812.44.11⟧|
    GSM ⟦0475 12 34 56⟧|Faks: ⟦22 61 90 04⟧|Sími ⟦581 2345⟧|📞 ⟦61 852 3310⟧|Gsm: ⟦09745 / 67 58 57⟧|
    Cell. ⟦338 552 1089⟧|⟦55 21 08 93⟧ (kontor)|ring til Mette på ⟦31 22 48 91⟧|
    ⟦934 552 108⟧ - mobile|⟦555 812 4410⟧ [work]|⟦812-4410⟧ (fax)""".split("|"),
)
def test_numbers_in_groups_with_a_label_on_either_side(text):
    found = [unmarked(text)[one.start : one.end] for one in find_phone_numbers(unmarked(text))]
    assert found == MARKED.findall(text)


@pytest.mark.parametrize(
    "text",
    [
        "Patch 1.4.2\n\nForge cost 1200 -> 950\nRespawn 00:45\nBuild 4471.302.18",
        "Final table\nRed Otters 14 9 3 2\nHarbour Nine 14 8 1 5\nTop scorer: number 11, 23 goals",
        "base is at -312 64 4471\nnether side 39 70 -128\nportal at x=1204, z=9931",
        "2 kg flour 3.40\n500 g butter 4,20\nTotal 8.49\nPaid 10.00",
        "order 4471302\nqty 3\nprice 129.00\nships 12.04.2024",
        "round 4: 12 345 678 points\nround 5: 1.204.300 points",
        "ISBN 978-3-16-148410-0\nSecond edition\n312 pages\n2019",
        "Guard captain\nHP 45, AC 17\nSpear +5, 1d8+3\nPassive perception 13",
        "Torch 2.13.0\nDriver 550.54.14\n24 GB, 450 W\n199.00",
        "Monday 08:15 Smithing, Hall 2\nTuesday 10:00 Knots, Hall 4",
        "Level 3\nRoom 12\nFloor 2\nthe door is locked",
    ],
)
def test_lines_of_the_same_shape_stay(text, anonymiser):
    assert anonymiser.find_entities(text) == []


def test_a_number_and_a_town_need_something_beside_them():
    text = "Ann Lee\n934 552 108\n12 345 678\n4410 Marvik"
    name = EntitySpan("PERSON", 0, 7, 2)
    found = {text[one.start : one.end]: one.kind for one in find_in_blocks(text, [name])}
    assert found == {
        "934 552 108": "PHONE_NUMBER"
    }  # thousands are no number without more than a name
    street = EntitySpan("STREET_ADDRESS", text.index("12 345"), text.index("\n4410"), 5)
    beside = "Forge 1200\n7 Highland Way 3"
    assert (
        list(find_in_blocks(beside, [EntitySpan("STREET_ADDRESS", 11, len(beside), 5)])) == []
    )  # one street is enough
    found = {text[one.start : one.end]: one.kind for one in find_in_blocks(text, [name, street])}
    assert found == {"934 552 108": "PHONE_NUMBER", "4410 Marvik": "STREET_ADDRESS"}
    assert list(find_in_blocks(text, [])) == []


def test_the_held_out_blocks_are_held_out():
    """No four words in a row are in them and in the templates that the tagger is trained on."""
    texts = held_out_blocks()
    held_out = {run for one in texts for run in phrases_of(one.text)}
    trained = {
        run
        for path in TEMPLATES_FOLDER.glob("*.txt")
        for run in phrases_of(path.read_text("utf-8"))
    }
    assert len(held_out) > 50 and not held_out & trained
    assert len({one.language for one in texts}) == 26
    assert not any(sign in one.text for one in texts for sign in "{}⟦")
    assert sum(not one.gold for one in texts) >= len(texts) / 4
    kinds = {gold.kind for one in texts for gold in one.gold}
    assert kinds == {"PERSON", "STREET_ADDRESS", "PHONE_NUMBER", "EMAIL_ADDRESS", "COUNTRY"}
    assert development_blocks(40) == development_blocks(40) and any(
        one.gold for one in development_blocks(40)
    )
