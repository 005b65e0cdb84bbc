"""Two accounts with one display name: an id says which of them is the persona, a name does not."""

import pytest

from personas.errors import MaterialError
from personas.schemas.chat import Persona
from tests.trainer.chat_logs import BEGIN_S, outcome, write
from trainer.dataset.inspection import format_summary, inspect_source
from trainer.sources.source_format import ReadOptions

ODA = Persona("oda", "Oda")
SAID = (
    ("30", "Oda", "first"),
    ("10", "Wick", "and?"),
    ("31", "Oda", "false"),
    ("30", "Oda", "real"),
)


def discord(said=SAID, **bots):
    messages = []
    for n, (id, name, text) in enumerate(said):
        author = {
            "id": id,
            "name": f"user{id}",
            "nickname": name,
            "isBot": id in bots.get("bots", ()),
        }
        messages.append(
            {
                "id": str(n),
                "type": "Default",
                "timestamp": f"2024-01-02T10:0{n}:00+00:00",
                "content": text,
                "author": author,
            }
        )
    return {"guild": {"id": "1"}, "channel": {"id": "77"}, "messages": messages}


def telegram(said=SAID):
    messages = []
    for n, (id, name, text) in enumerate(said):
        row = {"id": n + 1, "type": "message", "date_unixtime": str(int(BEGIN_S) + n)}
        messages.append(row | {"date": "", "from": name, "from_id": f"user{id}", "text": text})
    return {"name": "Tavern", "type": "private_group", "id": 77, "messages": messages}


@pytest.mark.parametrize(("content", "id"), [(discord(), "30"), (telegram(), "user30")])
@pytest.mark.parametrize("persona", [None, ODA])
def test_an_id_excludes_other_accounts_of_that_name(tmp_path, content, id, persona):
    path = write(tmp_path / "log.json", content)
    (talk,) = outcome(path, persona=persona, persona_names=(id,)).talks
    learned = [message.text for message in talk.messages if message.speaker.is_persona]
    assert learned == ["first", "real"]


@pytest.mark.parametrize("content", [discord(), telegram()])
@pytest.mark.parametrize("options", [{"persona": ODA}, {"persona_names": ("oda",)}])
def test_a_name_of_two_accounts_is_refused_with_their_ids(tmp_path, content, options):
    path = write(tmp_path / "log.json", content)
    with pytest.raises(MaterialError, match=r"2 accounts are named 'Oda'.*30.*31") as error:
        outcome(path, **options)
    assert "--as" in error.value.advice and "30" in error.value.advice


def test_several_ids_and_names_can_be_given(tmp_path):
    path = write(tmp_path / "log.json", discord())
    for names, learned in (
        (("30", "31"), ["first", "false", "real"]),
        (("30", "Oda"), ["first", "real"]),
        (("30", "Wick"), ["first", "and?", "real"]),
        (("user31",), ["false"]),
    ):
        (talk,) = outcome(path, persona_names=names).talks
        persona = [message.text for message in talk.messages if message.speaker.is_persona]
        assert persona == learned


def test_a_bot_of_the_personas_name_is_another_bot(tmp_path):
    path = write(tmp_path / "log.json", discord(bots=("31",)))
    found = outcome(path, persona=ODA, persona_names=("30",))
    assert found.said == [[("Oda", "first"), ("Wick", "and?"), ("Oda", "real")]]
    assert found.dropped == {"another bot": 1}
    proxies = write(tmp_path / "proxies.json", discord(bots=("30", "31")))
    assert outcome(proxies, persona=ODA).said == [
        [("Oda", "first"), ("Wick", "and?"), ("Oda", "false\nreal")]
    ]


def test_an_inspection_warns_of_shared_names(tmp_path):
    path = write(tmp_path / "log.json", discord())
    summary = inspect_source(path, ReadOptions())
    assert summary.as_json()["shared_names"] == {"Oda": ["30", "31"]}
    assert summary.as_json()["speakers"] == {"Oda (30)": 2, "Wick": 1, "Oda (31)": 1}
    shown = "\n".join(format_summary(summary, "log.json"))
    assert "2 accounts have the name Oda: 30, 31" in shown and "--as 30" in shown
