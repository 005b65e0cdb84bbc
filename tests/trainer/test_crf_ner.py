"""The small tagger: what it finds, what it leaves, where it stays silent, and how its model is made
and read.
"""

import itertools
import json
import logging
import re
import unicodedata

import pytest

from benchmarks.studies.pii_corpus import CORPUS_FOLDER, read_corpus
from personas.errors import UnderstudyError
from tools.name_tagger import train as training
from tools.name_tagger.synthetic_corpus import (
    TEMPLATE_FILE_SHARES,
    TEMPLATES_FOLDER,
    CorpusGenerator,
    LabelledText,
)
from trainer.anonymise.crf_ner.crf_tagger import MODEL_FILE, label_runs, load_tagger, read_model
from trainer.anonymise.crf_ner.gazetteer import load_gazetteer
from trainer.anonymise.crf_ner.token_features import FeatureExtractor
from trainer.anonymise.crf_ner.tokeniser import is_east_asian, tokenise


@pytest.fixture(scope="module")
def tagger():
    found = load_tagger()
    assert found is not None
    return found


def found(tagger, text, kind=None):
    return [
        text[start:end]
        for found_kind, start, end, _ in tagger.find(text)
        if kind in (None, found_kind)
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("hi im jonas from hamburg", ["jonas"]),
        (
            "My name is Oluwaseun Adeyemi-Clarke and this is my sister Funmilayo.",
            ["Oluwaseun Adeyemi-Clarke", "Funmilayo"],
        ),
        (
            "Dear Mrs. O'Callaghan,\n\nplease write to Dr. van der Meulen.",
            ["O'Callaghan", "van der Meulen"],
        ),
        ("Passenger: Grünwald, Annelies M.\nSeat: 14C", ["Grünwald, Annelies M."]),
        ("chị Hương ơi, anh Nguyễn Văn Khoa gọi", ["Hương", "Nguyễn Văn Khoa"]),
        ("ask Sanjay's wife or Kenji, they live upstairs", ["Sanjay", "Kenji"]),
        (
            "Jean-Luc Moreau and María José Fernández signed it.",
            ["Jean-Luc Moreau", "María José Fernández"],
        ),
    ],
)
def test_people_are_found_as_people_write_them(tagger, text, names):
    assert found(tagger, text, "PERSON") == names


@pytest.mark.parametrize(
    ("lead", "address", "end"),
    [
        ("Wir wohnen in der ", "Lindenstraße 14, 50667 Köln", "."),
        ("Herr Klaus Brandt\n", "24 rue des Lilas\n75011 Paris", ""),
        ("she lives at ", "17 Harbour Road", " with her cat"),
        ("giao tới ", "số 12 ngõ 34 phố Huế, quận Hai Bà Trưng, Hà Nội", " nhé"),
    ],
)
def test_addresses_are_found_whole(tagger, lead, address, end):
    text = lead + address + end
    (start, stop) = next(
        (start, stop) for kind, start, stop, _ in tagger.find(text) if kind == "STREET_ADDRESS"
    )
    assert text[start:stop].strip(" .") == address


@pytest.mark.parametrize(
    "text",
    [
        "I swapped my GTX 1060 for an RTX 4070 and the fans are quieter.",
        "The iPhone 15 Pro costs more than the Galaxy S24, at least here.",
        "We stayed in a 5 Star Hotel near the Route 66 diner.",
        "Is Windows 11 worth it, or should I stay on Windows 10?",
        "Chapter 12 was long, but Level 20 is longer.",
        "Monday is a holiday, and April was cold.",
        "How do I reset my password?",
        "Hôm nay trời đẹp quá, đi biển không?",
        "{}",
        "3 2 1 0",
    ],
)
def test_products_places_and_ordinary_words_stay(tagger, text):
    assert tagger.find(text) == []


def test_offsets_count_code_points_whatever_stands_before(tagger):
    for lead in ("", "🎉👩‍👩‍👧 ", "a\u0301\u0323 ", "𝔘𝔫 "):
        text = f"{lead}My name is Matthias Brandt."
        assert "Matthias Brandt" in found(tagger, text, "PERSON")
    decomposed = unicodedata.normalize("NFD", "Em tên là Nguyễn Thị Hồng.")
    assert found(tagger, decomposed, "PERSON") == [unicodedata.normalize("NFD", "Nguyễn Thị Hồng")]
    assert all(0 < score <= 1 for _, _, _, score in tagger.find("My name is Matthias Brandt."))


@pytest.mark.parametrize(
    "text",
    [
        "我叫陆星野，住在青石路27号。",
        "Jonasさんは明日来ます、たぶん。",
        "제 이름은 김하늘입니다",
        "Emil的中文比我还好",
    ],
)
def test_nothing_is_said_where_east_asian_writing_prevails(tagger, text):
    assert is_east_asian(text) and tagger.find(text) == []


def test_a_few_east_asian_letters_do_not_silence_it(tagger):
    text = "My name is Matthias Brandt (漢字 is hard) and I live in Hamburg"
    assert not is_east_asian(text) and found(tagger, text, "PERSON") == ["Matthias Brandt"]
    for text in (
        "代码里有ghp_abcdefghijklmnopqrstuvwxyz这种东西，赶紧撤掉",
        "https://example.com/abcdefghijklmnop 把这个链接删掉",
    ):
        assert not is_east_asian(text) and not re.search("[一-鿿]", "".join(found(tagger, text)))


@pytest.mark.parametrize(
    "text",
    ["", " \n ", "\x00", "\ud83d my \udc00", "a" * 60_000, "(" * 5_000, "Anna " * 4_000, "\u0301"],
)
def test_odd_texts_break_nothing(tagger, text):
    for _, start, end, _ in tagger.find(text):
        assert 0 <= start < end <= len(text)


# ----------------------------------------------------------------------------------- the model file


def test_the_model_that_ships_is_small_and_says_what_it_is():
    assert MODEL_FILE.stat().st_size < 1_400_000
    head, _ = read_model(MODEL_FILE)
    assert (
        head["texts"] == training.TRAINING_TEXTS
        and head["seed"] == training.SEED
        and "python-crfsuite" in head
    )
    assert load_tagger().name.endswith(head["sha256"][:8])


def damaged(how):
    whole = MODEL_FILE.read_bytes()
    return {
        "cut": whole[: len(whole) // 2],
        "flipped": whole[:-1000] + bytes([whole[-1000] ^ 1]) + whole[-999:],
        "empty": b"",
        "other": b"not a model\n" + whole,
        "list": b"[]\n" + whole,
        "format": whole.replace(b'"format": 1', b'"format": 9', 1),
    }[how]


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "other", "list", "format"])
def test_a_damaged_model_file_is_refused_and_the_log_says_why(tmp_path, caplog, how):
    path = tmp_path / "model.crf.xz"
    path.write_bytes(damaged(how))
    with caplog.at_level(logging.WARNING):
        assert load_tagger(path) is None
    assert (
        "rules only" in caplog.text
        and "model.crf.xz" in caplog.text
        and "Train it anew" in caplog.text
    )
    with pytest.raises(UnderstudyError):
        read_model(path)


def test_a_missing_model_file_is_no_failure(tmp_path, caplog):
    assert load_tagger(tmp_path / "none") is None
    assert "No such file" in caplog.text


# ----------------------------------------------------------------------------------------- training


def test_the_same_seed_gives_the_same_model(tmp_path):
    for name in ("one", "same"):
        assert training.main(["--out", str(tmp_path / name), "--texts", "60", "--seed", "1"]) == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "same").read_bytes()
    assert load_tagger(tmp_path / "one") is not None


def test_no_text_it_is_judged_on_shares_a_phrase_with_its_templates():
    assert CORPUS_FOLDER.is_dir()
    phrases = {
        run
        for name in TEMPLATE_FILE_SHARES
        for line in (TEMPLATES_FOLDER / name).read_text().splitlines()
        for run in phrases_of(line)
    }
    shared = {run for judged in read_corpus() for run in phrases_of(judged.text) if run in phrases}
    assert len(phrases) > 100 and not shared


def phrases_of(text, length=4):
    """Runs of four words between slots, choices and signs."""
    for part in re.split(r"[\[\]{}|.,;:!?\n]|\\n", text.lower()):
        words = part.split()
        yield from (tuple(words[at : at + length]) for at in range(len(words) - length + 1))


def test_made_texts_are_labelled_where_the_names_stand():
    seen = set()
    for made in itertools.islice(CorpusGenerator(11), 300):
        ends = 0
        for label, start, end in made.spans:
            assert ends <= start < end <= len(made.text)
            ends = end
            seen.add(label)
        cut = tokenise(made.text)
        labels = training.bio_labels(made, cut)
        assert sum(label in ("BP", "BA") for label in labels) <= sum(
            label in "PA" for label, _, _ in made.spans
        )
        assert "{" not in made.text and "[" not in made.text.replace("[]", "")
    assert seen == {"P", "A", "X", "N", "E"}


def test_labels_and_runs_are_each_others_reverse():
    made = LabelledText(
        (
            ("Hi ", "O"),
            ("Ann Vale", "P"),
            (", ", "O"),
            ("Ivo", "P"),
            (" at ", "O"),
            ("3 Elm St", "A"),
        )
    )
    cut = tokenise(made.text)
    assert training.bio_labels(made, cut) == ["O", "BP", "IP", "O", "BP", "O", "BA", "IA", "IA"]
    assert label_runs(training.bio_labels(made, cut)) == [("P", 1, 2), ("P", 4, 4), ("A", 6, 8)]
    assert label_runs(["IP", "IA", "X", "O", "BP", "BP"]) == [
        ("P", 0, 0),
        ("A", 1, 1),
        ("P", 4, 4),
        ("P", 5, 5),
    ]


def test_some_listed_words_are_hidden_while_training_and_none_afterwards():
    names = [
        "anna",
        "jonas",
        "mehmet",
        "priya",
        "lucia",
        "pavel",
        "ingrid",
        "tomasz",
        "kwame",
        "yuki",
        "hannah",
        "pedro",
    ]
    hidden = [name for name in names if "g" not in training.groups_with_dropout(name)]
    assert 0 < len(hidden) < len(names)
    assert all("g" in load_gazetteer().of(name) for name in names)


def test_words_keep_their_features_up_to_a_number(monkeypatch):
    monkeypatch.setattr("trainer.anonymise.crf_ner.token_features.MAX_CACHED_WORDS", 10)
    features = FeatureExtractor(load_gazetteer().of)
    words = [f"word{index}" for index in range(50)]
    assert features.of(words) == FeatureExtractor(load_gazetteer().of).of(words)
    assert len(features._kept) <= 10


def test_the_shape_of_the_vocabulary():
    words = load_gazetteer()
    assert (
        "g" in words.of("Krisztián") and "g" in words.of("krisztian") and "f" in words.of("Müller")
    )
    assert words.of("founders") == "c" and words.of("stopping") == "c"
    assert "r" in words.of("OR") and "r" not in words.of("or")
    assert words.of("qqxq") == ""
    assert json.loads(MODEL_FILE.read_bytes().partition(b"\n")[0])["format"] == 1
