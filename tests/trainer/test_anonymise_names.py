"""Names that nobody in the log has: by an installed model, by the tagger, by rules; and what of
them may stand.
"""

import sys
import textwrap

import pytest

from personas.schemas.chat import Persona
from trainer.anonymise.allowlist import proper_names, world_names
from trainer.anonymise.anonymiser import Anonymiser
from trainer.anonymise.name_detector import (
    CUE_RULES_LABEL,
    NameDetector,
    describe_name_search,
    find_names_by_cues,
    installed_models,
)
from trainer.sources.conversation import Conversation, SourceMessage, SourceSpeaker

KEY = b"k" * 32


class Pointing:
    """Stands in for a model: finds what it is told to."""

    name = "a pointer"

    def __init__(self, *found: str, kind: str = "PERSON") -> None:
        self.found = found
        self.kind = kind
        self.read: list[str] = []

    def find(self, text: str) -> list[tuple[str, int, int, float]]:
        self.read.append(text)
        return [
            (self.kind, text.index(f), text.index(f) + len(f), 1.0) for f in self.found if f in text
        ]


def found(text: str, *pointed: str, kind: str = "PERSON", said: str = "") -> list[str]:
    """What is replaced where a model points at these; `said` is what else the data set says."""
    made = Anonymiser(KEY, names=NameDetector(tagger=Pointing(*pointed, kind=kind)))
    made.register(
        Conversation.of(
            [SourceMessage(SourceSpeaker("1", ("Quillon",)), said, "1")], "talk", "form"
        )
    )
    return [text[entity.start : entity.end] for entity in made.find_entities(text)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("my name is Orla Quaid, hi", ["Orla Quaid"]),
        ("Dear Tobin, come soon", ["Tobin"]),
        ("ask for Marnie at the desk", ["Marnie"]),
        ("Dr. Osgood Pell is in", ["Osgood Pell"]),
        ("tên tôi là Trần Hiểu, xin chào", ["Trần Hiểu"]),
        ("gặp chị Lành nhé", ["Lành"]),
        ("我叫周小雨，你好", ["周小雨"]),
        ("私は山田花子です", ["山田花子"]),
        ("my name is on the list and this is Sunday", []),
    ],
)
def test_rules_find_people_after_cue_words_when_there_is_no_model(text, names):
    made = Anonymiser(KEY, names=NameDetector())
    assert [text[e.start : e.end] for e in made.find_entities(text)] == names
    assert made.names.description == CUE_RULES_LABEL


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Dear MR. ABERNATHY, hello", ["ABERNATHY"]),
        ("thanks, MS. DELACROIX", ["DELACROIX"]),
        ("Dear Mr. Petrov", ["Petrov"]),
        ("dear Mrs. Kowalski", ["Kowalski"]),
        ("Ask MR. PETROV about DR. QUAID-LEE.", ["PETROV", "QUAID-LEE"]),
        ("hello Mr President, and MR. SPEAKER", []),
    ],
)
@pytest.mark.parametrize(
    "finder", [NameDetector(), NameDetector.available()], ids=["rules", "tagger"]
)
def test_a_title_stays_and_the_name_behind_it_goes_in_capitals_too(text, names, finder):
    assert [
        text[e.start : e.end] for e in Anonymiser(KEY, names=finder).find_entities(text)
    ] == names


@pytest.mark.parametrize("lead", ["Mr. ", "MRS ", "Dr ", "I'm ", "I’m ", "Hey ", "Dear Prof. "])
def test_what_stands_before_a_name_is_no_part_of_it(lead):
    assert found(f"so {lead}Quennish", f"{lead}Quennish") == ["Quennish"]
    assert found(f"Hi there, {lead}Quennish!", "Quennish") == ["Quennish"]
    assert found(f"so {lead}".strip(), lead.strip()) == []


@pytest.mark.parametrize(
    "word",
    [
        "Hey",
        "France",
        "Christmas",
        "sci-fi",
        "Vicuna",
        "German shepherd",
        "User 1",
        "OpenAI APIs",
        "Ho Chi Minh",
    ],
)
def test_countries_feasts_breeds_and_brands_are_nobody(word):
    assert found(f"we like {word} here", word) == []
    assert found("we like Ho Chi Minh City", "Chi Minh") == []


def test_a_model_takes_no_code_and_nothing_numbered_for_an_address():
    assert found("def main(argv: list[str]) -> int", "[str]) -> int", kind="STREET_ADDRESS") == []
    assert found("at gate 42 way", "gate 42 way", kind="STREET_ADDRESS") == []


def test_words_in_vietnamese_only_are_no_name_in_small_letters():
    assert found("cái này thì nhỏ lắm", "này thì") == []


def test_the_tagger_reads_its_own_scripts_only_and_the_account_says_so():
    tagger = Pointing("Anna", "Πέτρος")
    made = Anonymiser(KEY, names=NameDetector(tagger=tagger))
    for text in ("你好吗，我很好", "こんにちは元気ですか", "안녕하세요 여러분", "how are you"):
        made.find_entities(text)
    assert tagger.read == ["how are you"]
    text = made.anonymise_text("قالت Anna للجميع, и Anna ушла (ಠ), Πέτρος नमस्ते")
    assert "Anna" not in text and "Πέτρος" not in text
    assert "قالت" in text and "للجميع" in text and "ушла" in text and "नमस्ते" in text
    assert made.searched_scripts == {
        "Han": {"rules": 2},
        "Hiragana": {"rules": 1},
        "Hangul": {"rules": 1},
        "Latin": {"model": 2},
        "Greek": {"model": 1},
        "Arabic": {"none": 1},
        "Cyrillic": {"none": 1},
        "Devanagari": {"none": 1},
    }
    assert describe_name_search({"Latin": {"model": 2}, "Arabic": {"none": 1_000}}) == (
        "names of people outside the log were looked for in Latin (2 texts); "
        "not looked for in Arabic (1,000 texts), where only known names and patterns are replaced"
    )
    assert describe_name_search({}) == ""


def test_a_model_of_all_languages_reads_every_script():
    any_language = Pointing("अनिका")
    made = Anonymiser(KEY, names=NameDetector({"": any_language}))
    assert "अनिका" not in made.anonymise_text("कल अनिका आई")
    assert made.searched_scripts == {"Devanagari": {"model": 1}}


def log_by(name: str, *texts: str) -> Conversation:
    speaker = SourceSpeaker("1", (name,))
    messages = [SourceMessage(speaker, text, str(row)) for row, text in enumerate(texts)]
    return Conversation.of(messages, "log", "own-writing")


@pytest.mark.parametrize(
    ("name", "texts", "become"),
    [
        ("राम शर्मा", ["राम शर्मा आए", "राम, कहाँ हो?"], ["* आए", "*, कहाँ हो?"]),
        ("অনিকা", ["আমি অনিকা কে দেখেছি"], ["আমি * কে দেখেছি"]),
        ("கவிதா", ["நேற்று கவிதா வந்தாள்"], ["நேற்று * வந்தாள்"]),
        ("สมชาย", ["เมื่อวานสมชายไปตลาด"], ["เมื่อวาน*ไปตลาด"]),
        ("ฝน", ["ฝนตกหนัก", "คุณฝนมาแล้ว", "ฝน มาหรือยัง"], ["ฝนตกหนัก", "คุณ*มาแล้ว", "* มาหรือยัง"]),
        ("សុខា", ["ខ្ញុំឃើញសុខានៅផ្សារ"], ["ខ្ញុំឃើញ*នៅផ្សារ"]),
        ("ကျော်စွာ", ["မနေ့က ကျော်စွာ လာတယ်"], ["မနေ့က * လာတယ်"]),
        ("أحمد", ["رأيت أحمد", "قلت لأحمد"], ["رأيت *", "قلت ل*"]),
        ("عبد الله سالم", ["والله لا أدري", "قال سالم"], ["والله لا أدري", "قال *"]),
        ("علی\u200cرضا", ["دیروز علی\u200cرضا آمد", "علیرضا رفت"], ["دیروز * آمد", "* رفت"]),
        ("דנה", ["נתתי לדנה", "ולדנה אין"], ["נתתי ל*", "ול* אין"]),
        ("አበበ", ["አበበ መጣ"], ["* መጣ"]),
        ("გიორგი", ["გიორგი მოვიდა"], ["* მოვიდა"]),
        ("Ольга", ["Ольга пришла, видел ольга"], ["* пришла, видел *"]),
    ],
)
def test_people_of_the_log_are_replaced_in_every_script(name, texts, become):
    log = log_by(name, *texts)
    made = Anonymiser(KEY)
    made.register(log)
    pseudonym = made.anonymise(log).messages[0].speaker.name
    assert [made.anonymise_text(text).replace(pseudonym, "*") for text in texts] == become


def test_a_model_reads_the_languages_that_it_knows():
    english = Pointing()
    chinese = Pointing("周小雨")
    made = Anonymiser(KEY, names=NameDetector({"en": english, "zh": chinese}))
    assert "周小雨" not in made.anonymise_text("昨天周小雨来了")
    made.find_entities("how are you")
    assert english.read == ["how are you"] and chinese.read == ["昨天周小雨来了"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("我把钥匙交给了顾晓岚，她四点以后在店里", ["顾晓岚"]),
        ("陆文：几点到\n司徒静：快了", ["陆文", "司徒静"]),
        ("班主任祝老师说春游改期，转告老冯", ["祝", "老冯"]),
        ("高兴的话，方便的时候，毛巾和黄瓜，关于老师的文件", []),
        ("华山路的石榴，凌晨，钱收起来", []),
    ],
)
def test_chinese_names_are_found_by_surname_and_context(text, names):
    assert [text[one.start : one.end] for one in find_names_by_cues(text, sure=True)] == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("chỗ bác Tư Mận gần cầu rẻ lắm", ["Tư Mận"]),
        ("Khách: Trịnh Thị Lựu, hai kiện", ["Trịnh Thị Lựu"]),
        ("ông già Noel và cô giáo đi chợ Bến Thành", []),
    ],
)
def test_vietnamese_names_are_found_after_titles_and_by_middle_names(text, names):
    assert [text[one.start : one.end] for one in find_names_by_cues(text, sure=True)] == names


def test_code_is_not_read_for_names():
    tagger = Pointing("Traceback")
    text = "so ```Traceback (most recent call)``` and `Traceback`"
    assert Anonymiser(KEY, names=NameDetector(tagger=tagger)).find_entities(text) == []
    assert len(tagger.read[0]) == len(text)


@pytest.mark.parametrize("word", ["lamb", "glares", "JOKE", "Oh", "Mrs", "He", "e.g.", "My lamb"])
def test_what_a_model_takes_for_a_name_and_is_a_word_stays(word):
    assert found(f"{word}, she said", word) == []


def test_a_word_that_texts_write_small_is_no_name_where_a_sentence_begins():
    assert found("Radish! And then?", "Radish", said="one radish, two radish") == []
    assert found("so Radish came", "Radish", said="so radish") == ["Radish"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Leek and barley, with too much pepper.", "Leek"),
        ("Barnacles, two layers deep.", "Barnacles"),
        ("Well. *Halloumi* on the left, please.", "Halloumi"),
        ("Tin rusts less than you think.", "Tin"),
        ("Moss grows on the wall.", "Moss"),
        ("Pickles go in last.", "Pickles"),
        ("Onions make me cry.", "Onions"),
    ],
)
def test_a_word_of_the_dictionary_is_no_name_where_a_sentence_begins(text, word):
    assert found(text, word) == []


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Cipolle e carote vanno tagliate fini.", "Cipolle"),
        ("Hujan turun sejak pagi tadi.", "Hujan"),
        ("Deszcz pada od samego rana.", "rana"),
        ("Bicikli kellene, mert a busz mindig késik.", "mert"),
        ("Regen trommelt seit Stunden gegen das Fenster.", "Stunden"),
    ],
)
def test_a_language_unknown_to_the_tagger_needs_more_than_its_opinion(text, word):
    assert found(text, word) == []
    assert found(f"{word}\nQuay Street 4", word) == [word]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Ask Will about it.", "Will"),
        ("Give the keys to Will, please.", "Will"),
        ("Dawn and Ann are twins.", "Dawn"),
        ("The Will of the people decides.", ""),
        ("汤很热。洋葱有点咸。", ""),
    ],
)
def test_a_name_that_is_a_word_is_found_by_its_capital_inside_a_sentence(text, kept):
    anonymised = Anonymiser(KEY).anonymise_text(text)
    assert kept not in anonymised if kept else anonymised == text


def test_a_word_at_the_beginning_is_a_name_where_something_says_so():
    assert found("Leek came in.", "Leek", said="so Leek said, and Leek left") == ["Leek"]
    assert found("ask Leek about it", "Leek") == ["Leek"]
    assert found("Leek Vale came in.", "Leek Vale") == ["Leek Vale"]
    assert found("Leek\nQuay Street 4", "Leek") == ["Leek"]
    made = Anonymiser(KEY)
    for name, text in {
        "Rose": "Rose said that it is late.",
        "Grace": "Grace, can you send it?",
        "Hope": "Hope asked him.",
        "Mark": "Mr. Mark is here.",
        "Will": "Will Brandt came by.",
    }.items():
        assert name not in made.anonymise_text(text)
    assert Anonymiser(KEY, also=["Leek"]).anonymise_text("Leek, are you there?")[:4] != "Leek"
    for text in ("Porridge, please.", "Mildew, I'm afraid.", "Toast, will you?"):
        assert made.anonymise_text(text) == text


def test_small_words_of_an_unknown_language_are_no_name():
    assert found("Yarın sabah pazardan almaya gideceğiz", "almaya gideceğiz") == []
    assert found("almaya gideceğiz", "almaya gideceğiz") == ["almaya gideceğiz"]
    assert found("i met quillon varro there", "quillon varro") == ["quillon varro"]


def test_a_name_in_small_letters_is_one():
    assert found("talk to patricia about it", "patricia") == ["patricia"]


@pytest.mark.parametrize(
    ("text", "word", "is_name"),
    [
        ("I can see nearly eleven miles past the mole", "miles", False),
        ("she brings it every autumn", "autumn", False),
        ("my jib is bent by an inch", "bent", False),
        ("ask Miles, he knows the way", "Miles", True),
        ("nhờ tram gửi giúp", "tram", True),
    ],
)
def test_a_given_name_that_is_an_ordinary_word_in_small_letters_is_no_name_there(
    text, word, is_name
):
    assert found(text, word) == [word] * is_name


def test_whoever_is_named_once_is_meant_by_the_same_word_elsewhere_and_the_first_name_belongs_to_it():
    text = "We read Orla Quennish aloud. Is there a better Quennish?"
    assert found(text, "Quennish") == ["Orla Quennish", "Quennish"]


def test_what_somebody_has_is_no_part_of_a_name():
    assert found("ask Elden's Margit", "Margit") == ["Margit"]


def test_an_address_needs_a_number_or_a_word_for_a_street():
    assert found("come on a Monday", "a Monday", kind="STREET_ADDRESS") == []
    assert found("the corner of Kuusiku 7", "Kuusiku 7", kind="STREET_ADDRESS") == ["Kuusiku 7"]


def test_what_no_model_can_encode_does_not_stop_it():
    assert "\x00\ud800" in Anonymiser(KEY).anonymise_text("so \x00\ud800 it is")


def test_proper_names_of_lore_are_known_also_where_a_sentence_begins():
    names = proper_names(
        ["Gross weighs two pounds. The gull Tare sits on Eel Stair; stairs are wet. Wet stairs!"]
    )
    assert {"Gross", "Tare", "Eel Stair"} <= names and not {"Wet", "The"} & names


def test_a_card_names_its_world():
    ada = Persona("ada", "Ada Lace", description="Ada keeps the Tidewarden's lamp with Orrick.")
    assert {"Orrick", "Tidewarden"} <= world_names(ada, None)
    made = Anonymiser(
        KEY,
        persona=ada,
        keep=world_names(ada, None),
        names=NameDetector(tagger=Pointing("Orrick", "Ada Lace")),
    )
    assert made.find_entities("Ask Orrick or Ada Lace.") == []


# --------------------------------------------------------------------------------- installed models


@pytest.fixture
def spacy_with_a_model(tmp_path, monkeypatch):
    """A library called spaCy and a package of a model for it, as an operator may have installed
    them.
    """
    (tmp_path / "spacy.py").write_text(
        textwrap.dedent("""
            class Entity:
                label_, start_char, end_char = "PERSON", 4, 8

            class Pipeline:
                def __call__(self, text):
                    self.ents = [Entity()]
                    return self

            def load(name):
                assert name == "en_tiny_sm"
                return Pipeline()
        """)
    )
    package = tmp_path / "en_tiny_sm-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: en-tiny-sm\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[spacy_models]\nen_tiny_sm = en_tiny_sm\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "spacy", raising=False)
    yield
    sys.modules.pop("spacy", None)


def test_a_spacy_model_is_used_where_it_is_installed_and_said(spacy_with_a_model):
    names = NameDetector(installed_models())
    assert names.description == "spaCy en_tiny_sm"
    assert Anonymiser(KEY, names=names).anonymise_text("see Orla now").split()[1] != "Orla"


def test_without_a_model_no_library_for_one_is_imported():
    before = set(sys.modules)
    assert installed_models() == {} and not {"spacy", "gliner", "torch"} & (
        set(sys.modules) - before
    )


def test_a_gliner_model_in_the_hubs_cache_is_used_and_nothing_is_fetched(tmp_path, monkeypatch):
    (tmp_path / "gliner.py").write_text(
        textwrap.dedent("""
            class GLiNER:
                @classmethod
                def from_pretrained(cls, name, local_files_only):
                    assert name == "somebody/gliner_small" and local_files_only
                    return cls()

                def predict_entities(self, text, labels, threshold):
                    return [{"label": "person", "start": 4, "end": 8, "score": 0.9}]
        """)
    )
    (tmp_path / "hub" / "models--somebody--gliner_small").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    names = NameDetector(installed_models())
    sys.modules.pop("gliner", None)
    assert names.description == "GLiNER somebody/gliner_small"
    assert Anonymiser(KEY, names=names).anonymise_text("see Orla now").split()[1] != "Orla"
