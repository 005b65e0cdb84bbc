"""Tables of chats in forty forms: each is recognised rightly or asked about, never read with another column as text."""

import pytest

from personas.schemas.chat import Persona
from tests.trainer.chat_tables import SAID, TALK, chat_tables
from tests.trainer.read_sources import everything
from trainer.sources.column_profile import UnclearColumnsError

TABLES = {table.name: table for table in chat_tables()}
TANSY = Persona("tansy", "Tansy")
KNOWN_LANGUAGES = ("en", "de", "fr", "ko")


def learned(conversations):
    """All that the persona says, line by line."""
    lines = [m.text for c in conversations for m in c.messages if m.speaker.is_persona]
    return [line for text in lines for line in text.split("\n")]


def test_there_are_forty():
    assert len(TABLES) == 40


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_rightly_or_asked_about(tmp_path, name):
    table = TABLES[name]
    path = tmp_path / name
    path.write_text(table.content, encoding="utf-8")
    said = list(SAID) if name != "short.csv" else ["no", "hm", "ok"]
    language, _, form = name.partition("-")
    try:
        used, rejected = everything(path, persona=TANSY)
        is_asked = False
    except UnclearColumnsError as error:
        is_asked = True
        assert all(cell not in str(error) for pair in TALK for cell in pair), "members may see it"
        proposal = dict(error.question.proposal)
        assert {role: proposal.get(role) for role in ("speaker", "text")} == {
            role: table.mapping[role] for role in ("speaker", "text")
        }
        used, rejected = everything(path, persona=TANSY, mapping=table.mapping)
    assert learned(used) == said and not [item for item in rejected if item.reason != "no text"]
    if form in ("0.csv", "1.csv", "2.csv"):
        assert is_asked is (language not in KNOWN_LANGUAGES)
    if "headerless" in form:
        assert is_asked, "content alone does not say who speaks"


def test_the_same_talk_is_somebody_elses_under_another_name(tmp_path):
    path = tmp_path / "talk.csv"
    path.write_text(TABLES["de-0.csv"].content, encoding="utf-8")
    used, _ = everything(path, persona_names=("Corvin",))
    assert learned(used) == [text for name, text in TALK if name == "Corvin"]
    assert {m.at > 0 for c in used for m in c.messages} == {True}
