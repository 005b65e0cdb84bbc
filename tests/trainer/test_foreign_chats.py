"""Chats of other programs: who speaks and whose lines are learned is read from the file, or asked
for.
"""

import json
import zipfile
from datetime import UTC, datetime

import pytest

from personas.errors import MaterialError
from personas.schemas.chat import Persona
from tests.trainer.chat_tables import SAID, TALK
from tests.trainer.read_sources import everything, jsonl, spoken
from trainer.dataset.inspection import form_items
from trainer.sources.column_question import UnclearColumnsError
from trainer.sources.reader import read_usable
from trainer.sources.registry import describe_content, detect_format
from trainer.sources.source_format import ReadOptions

TANSY = Persona("tansy", "Tansy")
SPOKEN = [(name + "*" * (name == "Tansy"), text) for name, text in TALK]
START = datetime(2026, 3, 1, 9, tzinfo=UTC).timestamp()


def read(path, content, **options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return everything(path, **options)


# SillyTavern


def tavern_lines():
    """Two replies with swipes: the shown one is the second, then the first."""
    for number, (name, text) in enumerate(TALK):
        line = {"name": name, "is_user": name == "Corvin", "is_system": False, "mes": text}
        line["send_date"] = "March 1, 2026 9:00am" if number % 2 else "2026-3-1@09h00m00s"
        if name == "Tansy":
            swipes = ["an earlier try", text] if number == 1 else [text, "a later try"]
            line |= {"swipes": swipes, "swipe_id": swipes.index(text)}
        yield line


HEADER = {
    "user_name": "Corvin",
    "character_name": "Tansy",
    "create_date": "2026-3-1@09h00m00s",
    "chat_metadata": {},
}


@pytest.mark.parametrize(
    "head", [[HEADER], [], [{key: it for key, it in HEADER.items() if key != "chat_metadata"}]]
)
def test_a_tavern_chat_is_its_characters(tmp_path, head):
    path = tmp_path / "chat.jsonl"
    lines = list(tavern_lines())
    hidden = [lines[0] | {"is_system": True}, lines[1] | {"mes": "", "swipes": []}]
    used, rejected = read(path, jsonl([*head, *lines, *hidden]))
    assert detect_format(path).name == "sillytavern"
    assert spoken(used[0]) == SPOKEN and used[0].roles == ("Tansy",) and used[0].rows == 6
    assert [it.reason for it in rejected] == ["hidden from the prompt (is_system)", "no text"]
    with pytest.raises(MaterialError, match=r"Wick .*chat\.jsonl\..*: Tansy 1"):
        list(read_usable(path, ReadOptions(persona=Persona("wick", "Wick"))))


@pytest.mark.parametrize("mes", ["", "an earlier try"])
def test_the_shown_swipe_is_the_text_unless_that_was_edited(tmp_path, mes):
    lines = list(tavern_lines())
    lines[1] |= {"mes": mes, "swipe_id": 1}
    lines[3] |= {"mes": "{{char}} nods at {{user}}."}
    (talk,), _ = read(tmp_path / "chat.jsonl", jsonl(lines))
    assert spoken(talk)[1] == SPOKEN[1] and spoken(talk)[3] == ("Tansy*", "Tansy nods at Corvin.")


def test_of_a_group_it_is_asked_whose_lines_are_learned(tmp_path):
    lines = list(tavern_lines())
    lines[3]["name"] = "Wenda"
    read(tmp_path / "chat.jsonl", jsonl(lines))
    with pytest.raises(MaterialError, match=r"\w+ 1, \w+ 1; .*whose are learned"):
        list(read_usable(tmp_path / "chat.jsonl", ReadOptions()))


# ChatGPT


def tree(**more):
    """A conversation whose first answer was regenerated; the shown branch is the second one."""

    def node(parent, children, role="", text="", **fields):
        message = {
            "author": {"role": role},
            "content": {"content_type": "text", "parts": [text]},
        } | fields
        return {"parent": parent, "children": children, "message": message if role else None}

    hidden = {"metadata": {"is_visually_hidden_from_conversation": True}}
    mapping = {
        "r": node(None, ["s"]),
        "s": node("r", ["q"], "system", "", **hidden),
        "q": node("s", ["x", "y"], "user", TALK[0][1]),
        "x": node("q", [], "assistant", "an answer that was thrown away"),
        "y": node(
            "q", ["z"], "assistant", "hm", content={"content_type": "thoughts", "thoughts": []}
        ),
        "z": node("y", [], "assistant", TALK[1][1]),
    }
    return {"title": "Ferry", "mapping": mapping, **more}


def test_of_a_tree_the_shown_branch_is_read(tmp_path):
    path = tmp_path / "conversations.json"
    said = [("user", TALK[0][1]), ("assistant*", TALK[1][1])]
    for more in ({"current_node": "z"}, {}):
        (talk,), rejected = read(path, json.dumps([tree(**more)]))
        assert spoken(talk) == said and not rejected and detect_format(path).name == "chatgpt"
    (other,), _ = read(path, json.dumps([tree(current_node="x")]))
    assert spoken(other)[1] == ("assistant*", "an answer that was thrown away")
    broken = tree(current_node="z")
    broken["mapping"]["q"]["parent"] = "z"
    tool = tree(current_node="z")
    tool["mapping"]["z"]["message"]["recipient"] = "python"
    _, rejected = read(path, json.dumps([broken, tool]))
    assert [it.reason for it in rejected] == ["its branch has no beginning", "contains tool calls"]


# LINE and KakaoTalk


def lines_of(form):
    return "".join(form.format(n=n, name=name, text=text) for n, (name, text) in enumerate(TALK))


CHATS = {
    "line-ja.txt": "[LINE] Tansyとのトーク履歴\n保存日時：2026/03/02 10:00\n\n2026/03/01(日)\n"
    + lines_of("09:0{n}\t{name}\t{text}\n"),
    "line-en.txt": "[LINE] Chat history with Tansy\nSaved on: 2026/03/02 10:00\n\nSun, 03/01/2026\n"
    + lines_of("9:0{n} AM\t{name}\t{text}\n"),
    "line-zh.txt": "\ufeff[LINE] 與Tansy的聊天記錄\r\n儲存日期： 2026/03/02 10:00\r\n\r\n2026/03/01（日）\r\n"
    + lines_of("上午09:0{n}\t{name}\t{text}\r\n"),
    "kakao-android.txt": lines_of("2026년 3월 1일 오전 9:0{n}, {name} : {text}\n"),
    "kakao-android-en.txt": "KakaoTalk Chats with Tansy\nDate Saved : Mar 2, 2026, 10:00 AM\n\nMarch 1, 2026\n"
    + lines_of("March 1, 2026, 9:0{n} AM, {name} : {text}\n"),
    "kakao-ios.txt": "Tansy 님과 카카오톡 대화\n저장한 날짜 : 2026. 3. 2. 오전 10:00\n\n2026년 3월 1일 일요일\n"
    + lines_of("2026. 3. 1. 오전 9:0{n}, {name} : {text}\n"),
    "kakao-windows.txt": "Tansy 님과 카카오톡 대화\n저장한 날짜 : 2026-03-02 10:00:00\n\n"
    + "--------------- 2026년 3월 1일 일요일 ---------------\n"
    + lines_of("[{name}] [오전 9:0{n}] {text}\n"),
    "kakao.csv": "Date,User,Message\n" + lines_of('2026-03-01 09:0{n}:00,{name},"{text}"\n'),
}


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_in_text_is_a_log_with_times(tmp_path, name):
    path = tmp_path / name
    (talk,), rejected = read(path, CHATS[name], persona=TANSY)
    assert spoken(talk) == SPOKEN and not rejected
    assert [m.at for m in talk.messages] == [START + 60 * n for n in range(6)]
    assert detect_format(path).name == name.partition("-")[0].replace("kakao", "kakaotalk").replace(
        ".", "-"
    )


def test_what_the_apps_write_is_not_learned(tmp_path):
    line = '09:07\tTansy\t[Sticker]\n09:08\tTansy\t"Two\nlines"\n09:09\tTansy unsent a message.\n'
    (talk,), rejected = read(tmp_path / "line.txt", CHATS["line-ja.txt"] + line, persona=TANSY)
    assert talk.messages[-1].text == "Then you have two coins.\nTwo\nlines"
    assert [it.reason for it in rejected] == ["only an attachment", "system message"]
    kakao = (
        "2026년 3월 1일 오전 9:07, Tansy : 사진\n2026년 3월 1일 오전 9:08, Tansy님이 나갔습니다.\n"
    )
    _, rejected = read(tmp_path / "kakao.txt", CHATS["kakao-android.txt"] + kakao, persona=TANSY)
    assert [it.reason for it in rejected] == ["only an attachment", "system message"]


# Which side is the bot's


def test_the_bots_side_is_known_from_classes_ids_and_flags(tmp_path):
    greeting = [("b", "Hello, I keep the ferry."), ("h", "Is it late?"), ("b", "Never.")]
    sides = {"b": ("p2", "Bot"), "h": ("p1", "Human")}
    said = [
        ("assistant*", greeting[0][1]),
        ("user", greeting[1][1]),
        ("assistant*", greeting[2][1]),
    ]
    classes = {c: {"sender": sides[c][0], "sender_class": sides[c][1]} for c in sides}
    rows = [
        {"dialog": [classes[c] | {"text": t} for c, t in greeting], "bot_profile": ["i keep a ferry."]},
        {"dialog": [{"sender": sides[c][0], "text": t} for c, t in greeting],
         "p1_id": {"class": "User"}, "p2_id": {"class": "Bot"}},
        {"thread": [{"userId": sides[c][0], "text": t} for c, t in greeting],
         "users": [{"id": "p2", "userType": "Bot"}, {"id": "p1", "userType": "Human"}]},
        {"talk": [{"is_bot": c == "b", "message": t} for c, t in greeting]},
    ]  # fmt: skip
    for row in rows:
        (talk,), rejected = read(tmp_path / "talk.json", json.dumps([row]))
        assert spoken(talk) == said and not rejected, row
        assert talk.system == ("i keep a ferry." if "bot_profile" in row else "")
    unknown = [{"dialog": [{"sender": sides[c][0], "text": t} for c, t in greeting]}]
    read(tmp_path / "talk.json", json.dumps(unknown))
    with pytest.raises(MaterialError, match=r"p1 1, p2 1; .*whose are learned"):
        list(read_usable(tmp_path / "talk.json", ReadOptions()))
    (talk,) = read_usable(tmp_path / "talk.json", ReadOptions(persona_names=("p2",)))
    assert spoken(talk)[0] == ("p2*", greeting[0][1])


def test_names_may_be_the_keys_of_turns(tmp_path):
    rows = [{"dialogue": [{name: text} for name, text in TALK]}]
    (talk,), _ = read(tmp_path / "talk.json", json.dumps(rows), persona=TANSY)
    assert spoken(talk) == SPOKEN


def test_only_desirable_answers_are_learned(tmp_path):
    asked = [{"role": "user", "content": "hi"}]
    good = {"role": "bot", "content": "come in"}
    bad = {"role": "bot", "content": "go away"}
    files = [
        [
            {"prompt": "hi", "completion": one["content"], "desirable": int(one is good)}
            for one in (good, bad)
        ],
        [
            {"context": asked, "answer": answer, "is_desirable": answer is good}
            for answer in (good, bad)
        ],
        [
            {"prompt": "hi", "completion": one["content"], "label": one is good}
            for one in (good, bad)
        ],
        [
            {"messages": [*asked, answer | {"role": "assistant"}], "kto_tag": answer is good}
            for answer in (good, bad)
        ],
    ]
    for rows in files:
        (talk,), rejected = read(tmp_path / "rows.jsonl", jsonl(rows))
        assert spoken(talk) == [("user", "hi"), ("assistant*", "come in")]
        assert [it.reason for it in rejected] == ["marked as undesirable"]


@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [("label", 1, 0), ("label", "1", "0"), ("Label", "good", "bad"), ("feedback", "thumbs_up", "thumbs_down"),
     ("thumbs", "Up", "Down"), ("verdict", "desirable", "undesirable"), ("thumbs_down", False, True),
     ("vote", 1, -1), ("rating", "thumbs up", "thumbs-down")],
)  # fmt: skip
def test_answers_are_learned_by_their_verdict_in_any_spelling(tmp_path, column, good, bad):
    marks = {"come in": good, "go away": bad}
    rows = [{"prompt": "hi", "completion": text, column: mark} for text, mark in marks.items()]
    (talk,), rejected = read(tmp_path / "rows.jsonl", jsonl(rows))
    assert spoken(talk) == [("user", "hi"), ("assistant*", "come in")]
    assert [item.reason for item in rejected] == ["marked as undesirable"]
    content = describe_content(tmp_path / "rows.jsonl", ReadOptions())
    assert [format.name for format, _ in content.formats.values()] == ["kto"]
    assert any(
        "marked as desirable" in item.why for item in form_items(content.formats, content.columns)
    )


def test_a_label_with_more_than_two_values_is_no_verdict_and_two_unknown_ones_are_asked_for(
    tmp_path,
):
    classes = [{"prompt": "hi", "completion": f"come in {n}", "label": n % 3} for n in range(9)]
    talks, rejected = read(tmp_path / "classes.jsonl", jsonl(classes))
    assert len(talks) == 9 and not rejected
    unclear = [row | {"label": "AB"[n % 2]} for n, row in enumerate(classes)]
    with pytest.raises(MaterialError, match=r"'label' .*'A' and 'B'"):
        read(tmp_path / "unclear.jsonl", jsonl(unclear))
    mapping = {"user": "prompt", "assistant": "completion"}
    talks, _ = read(tmp_path / "unclear.jsonl", jsonl(unclear), mapping=mapping)
    assert len(talks) == 9


# What is not read


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.html",
            '<!DOCTYPE html>\n<html><body class="page_wrap">…</body></html>',
            "Machine-readable JSON",
        ),
        (
            "a.html",
            "<html><body><p>Corvin: hi</p></body></html>",
            "is a web page",
        ),
        ("a.xml", '<?xml version="1.0"?>\n<smses count="1"><sms body="hi"/></smses>', "is XML"),
        (
            "a.lorebook",
            {"lorebookVersion": 4, "entries": [{"text": "A ferry.", "keys": ["ferry"]}]},
            "as lore",
        ),
        (
            "w.json",
            {"entries": {"0": {"uid": 0, "key": ["ferry"], "content": "A ferry."}}},
            "Import it as lore",
        ),
        (
            "irc.txt",
            lines_of("[09:0{n}] <{name}> {text}\n"),
            "lines begin with a time",
        ),
        ("irc.txt", lines_of("<{name}> {text}\n"), "lines begin with a name"),
        ("dash.txt", lines_of("{name} - {text}\n"), "lines begin with a name"),
        ("em.txt", lines_of("{name}—{text}\n"), "lines begin with a name"),
        ("stop.txt", lines_of("{name}. {text}\n"), "lines begin with a name"),
        ("equals.txt", lines_of("- {name} = {text}\n"), "lines begin with a name"),
        ("quoted.txt", lines_of('{name} "{text}"\n'), "lines begin with a name"),
        ("list.json", [f"{name} - {text}" for name, text in TALK], "lines begin with a name"),
        ("marked.txt", "> Still here.\nIt never left.\n" * 4, "two speakers take turns"),
        ("asked.txt", "Still here?\nIt never left.\n" * 4, "two speakers take turns"),
        ("asked.json", ["Still here?", "It never left."] * 4, "--format quote-list"),
        ("copy.txt", lines_of("{name} — 01/03/2026 09:0{n}\n{text}\n"), "lines begin with a time"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_name(tmp_path, name, content, said):
    content = content if isinstance(content, str) else json.dumps(content)
    with pytest.raises(MaterialError) as caught:
        read(tmp_path / name, content)
    assert said in str(caught.value) and "Known formats" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "Mr. Corvin: Still here?\nMrs. Tansy: It never left.\n" * 4,
        '- Corvin: "Still here?"\n- Tansy: "It never left."\n' * 4,
    ],
)
def test_lines_with_names_and_colons_are_a_script(tmp_path, content):
    (talk,), rejected = read(tmp_path / "script.txt", content)
    assert len(talk.messages) == 8 and not rejected


def test_lines_that_take_turns_are_quotes_if_somebody_says_so(tmp_path):
    used, _ = read(tmp_path / "asked.txt", "Still here?\nIt never left.\n" * 4, format="quote-list")
    assert len(used) == 8


def test_a_folder_of_pages_says_what_to_export(tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "messages.html").write_text("<html></html>")
    with pytest.raises(
        MaterialError,
        match=r"web pages.*Export .*JSON",
    ):
        detect_format(tmp_path / "export")


NESTED = [
    {
        "sender": {"name": name},
        "content": {"body": text},
        "origin_server_ts": 1000 * (START + 60 * n),
    }
    for n, (name, text) in enumerate(TALK)
]


def test_fields_inside_objects_can_be_mapped(tmp_path):
    path = tmp_path / "room.json"
    with pytest.raises(UnclearColumnsError) as caught:
        read(path, json.dumps({"room_name": "Quay", "messages": NESTED}))
    proposal = caught.value.question.proposal
    assert proposal == {
        "speaker": "sender.name",
        "text": "content.body",
        "time": "origin_server_ts",
    }
    (talk,), _ = everything(path, mapping=proposal, persona=TANSY)
    assert spoken(talk) == SPOKEN and talk.messages[0].at == START
    assert [m.text for m in talk.messages if m.speaker.is_persona] == list(SAID)


def test_pairs_of_name_and_text_are_no_talk_of_two_turns(tmp_path):
    path = tmp_path / "talk.json"
    with pytest.raises(UnclearColumnsError) as caught:
        read(path, json.dumps(TALK))
    proposal = caught.value.question.proposal
    assert proposal == {"speaker": "messages.1", "text": "messages.2"}
    (talk,), _ = everything(path, mapping=proposal, persona=TANSY)
    assert spoken(talk) == SPOKEN
    used, _ = read(path, json.dumps([[text, f"{text} Yes."] for _, text in TALK]))
    assert len(used) == 6 and used[0].messages[1].speaker.is_persona, "pairs of texts still are"


def test_content_counts_more_than_a_header_that_contradicts_it(tmp_path):
    swapped = "Date,Message,User\n" + lines_of('2026-03-01 09:0{n}:00,{name},"{text}"\n')
    with pytest.raises(UnclearColumnsError) as caught:
        read(tmp_path / "talk.csv", swapped)
    assert caught.value.question.proposal == {"speaker": "Message", "text": "User", "time": "Date"}


def test_a_column_of_roles_goes_before_one_of_names(tmp_path):
    rows = [
        {"sender": name, "sender_class": ("Human", "Bot")[name == "Tansy"], "text": text}
        for name, text in TALK
    ]
    (talk,), _ = read(tmp_path / "talk.jsonl", jsonl(rows))
    assert [m.speaker.is_persona for m in talk.messages] == [False, True] * 3


def test_a_document_of_an_office_program_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "talk.xlsx", "w") as file:
        file.writestr("[Content_Types].xml", "<?xml version='1.0'?><Types/>")
    with pytest.raises(MaterialError, match=r"talk\.xlsx .*office program.*CSV"):
        detect_format(tmp_path / "talk.xlsx")
