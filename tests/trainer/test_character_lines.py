"""Lines of characters: role-play rows, scenes in one text, scripts, quotes; and prompts that nobody
answers.
"""

import json
import sys
from pathlib import Path

import pytest

from personas.errors import MaterialError
from personas.schemas.chat import Persona
from tests.trainer.conversations import sentence
from tests.trainer.job_folders import sign
from tests.trainer.read_sources import everything, jsonl, only, spoken
from trainer.cli.main import main
from trainer.sources.reader import read_usable
from trainer.sources.registry import detect_format
from trainer.sources.source_format import ReadOptions

GUEST = ("Guest", "Is there soup?")
ASKED = ("user", "Is there soup?")
ALWAYS = ("Oda*", "Always.")
SCENE = (
    "Guest: Is there soup?\nOda: Always.\nIt is on the fire.\nGuest: Hot?\nOda: Hotter than you."
)
SCENE_SAID = [
    GUEST,
    ("Oda*", "Always.\nIt is on the fire."),
    ("Guest", "Hot?"),
    ("Oda*", "Hotter than you."),
]
ZH_SAID = [
    ("猪八戒", "师兄，等等我。"),
    ("孙悟空*", "呆子，快走！"),
    ("猪八戒", "走不动了。"),
    ("孙悟空*", "那就飞。"),
]

ROWS = [
    # RoleBench
    ({"role": "Oda", "question": "Is there soup?", "generated": ["Always.", "Yes."], "type": "general"},
     [ASKED, ALWAYS]),
    ({"role": "Oda", "question": "Is there soup?", "answers": ["", "Always."]}, [ASKED, ALWAYS]),
    # OpenCharacter, and a set's own names
    ({"character": "Oda", "persona": "A cook.", "question": "Is there soup?", "character_answer": "Always."},
     [ASKED, ALWAYS]),
    ({"Role": "Oda", "Query": "Is there soup?", "Response": "Oda: “Always.”"}, [ASKED, ALWAYS]),
    ({"role_A": "Guest", "role_B": "Oda", "query": "「Is there soup?」", "response": "「Always.」", "keywords": []},
     [ASKED, ALWAYS]),
    # CharacterEval: the scene so far, in one text
    ({"id": 1, "role": "Oda", "novel_name": "The Kitchen", "context": SCENE + "\nGuest: More!"},
     [*SCENE_SAID, ("Guest", "More!")]),
    ({"role": "Oda", "scene": "Guest: Is there soup? Oda: Always. Guest: Hot? Oda: Hotter than you."},
     [GUEST, ALWAYS, *SCENE_SAID[2:]]),
    ({"role": "孙悟空",
      "context": "猪八戒：师兄，等等我。\n孙悟空：「呆子，快走！」\n猪八戒：走不动了。\n孙悟空:「那就飞。」"},
     ZH_SAID),
    ({"role": "孙悟空",
      "context": "猪八戒：师兄，等等我。孙悟空：「呆子，快走！」猪八戒：走不动了。孙悟空：「那就飞。」"},
     ZH_SAID),
    ({"role": "Oda", "context": "Guest: Is there soup?", "response": "Always."}, [GUEST, ALWAYS]),
    ({"role": "Oda the Cook", "dialogue": "Guest: Is there soup?\nOda: Always."},
     [GUEST, ("Oda the Cook*", "Always.")]),
    # ChatHaruhi: what the role is told, scenes, and the answer with the name before it
    ({"context": "You play Oda.\n###\nGuest:「Is there soup?」\nOda:「Always.」\n###\nGuest:「Hot?」",
      "target": "Oda:「Hotter than you.」"}, [GUEST, ALWAYS, *SCENE_SAID[2:]]),
    ({"dialogue": [{"role": "Guest", "text": "「Is there soup?」"}, {"role": "Oda", "text": "「Always.」"}],
      "source": "synthesized"}, [GUEST, ALWAYS]),
    # PIPPA, as lines and as Arrow stores it
    ({"bot_name": "Oda", "bot_description": "A cook.", "conversation": [
        {"message": "Is there soup?", "is_human": True}, {"message": "Always.", "is_human": False}]}, [ASKED, ALWAYS]),
    ({"bot_name": "Oda", "conversation": {"message": ["Is there soup?", "Always."], "is_human": [True, False]}},
     [ASKED, ALWAYS]),
    # CharacterBench
    ({"character_name": "Oda", "character_profile": "A cook.", "user_name": "user", "dialogue": [
        {"turn": 1, "speaker": "user", "utterance": "Is there soup?"},
        {"turn": 1, "speaker": "character", "utterance": "Always."}]}, [ASKED, ALWAYS]),
    # Character-LLM: an interview, several turns, and a scene after its setting
    ({"topic_id": "t1", "question": "Is there soup?",
      "reply": [{"role": "Oda", "action": "(speaking)", "content": "Always."}]}, [ASKED, ALWAYS]),
    ({"character": "Oda", "model": "m", "content": [
        {"turn_role": "interviewer", "turn_content": [{"role": "Man", "action": "(speaking)", "content": GUEST[1]}]},
        {"turn_role": "character", "turn_content": [{"role": "Oda", "action": "(speaking)", "content": "Always."}]}]},
     [ASKED, ALWAYS]),
    ({"prompt": "Act like Oda. A kitchen.", "output": "Guest (speaking): Is there soup?<|eot|>\nOda (thinking): Him."
      "<|eot|>\nOda (speaking): Always.<|eot|>"}, [GUEST, ALWAYS]),
    ({"bot_name": "Oda", "conversation": [{"message": "Hi, I'm {{user}}.", "is_human": True},
                                          {"message": "{{char}} greets {{user}}.", "is_human": False}]},
     [("Guest", "Hi, I'm Guest."), ("Oda*", "Oda greets Guest.")]),
    ({"role": "Oda", "instruction": "Say how it is:", "input": "soup", "output": "Hot.", "history": [["Hi", "Sit."]]},
     [("user", "Hi"), ("Oda*", "Sit."), ("user", "Say how it is:\nsoup"), ("Oda*", "Hot.")]),
    ({"character": "Oda", "question": "&quot;Soup&quot; &amp; bread?", "answer": "It&#39;s here."},
     [("user", '"Soup" & bread?'), ("Oda*", "It's here.")]),
]  # fmt: skip


@pytest.mark.parametrize(("row", "said"), ROWS)
def test_a_row_that_names_its_role_is_learned_as_that_characters(tmp_path, row, said):
    format, conversation = only(tmp_path / "rows.json", jsonl([row]))
    assert format == "role-play" and spoken(conversation) == said
    assert conversation.roles[0] + "*" in {name for name, _ in said}


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({"role": "assistant", "question": "Why?", "answer": "Because."}, "answers"),
        ({"role": "Oda", "prompt": "Why?", "chosen": "Because.", "rejected": "No."}, "preference"),
        (
            {
                "role": "Oda",
                "persona_b": ["I cook."],
                "dialogue": ["Why?"],
                "reference": "Because.",
            },
            "persona-rows",
        ),
        ({"question": "Why?", "context": "Oda is a cook.", "answer": "Because."}, "answers"),
        ({"instruction": "Why?", "input": "A: b", "output": "Because."}, "alpaca"),
        (
            {
                "messages": [
                    {"role": "user", "content": "Why?"},
                    {"role": "assistant", "content": "So."},
                ]
            },
            "openai",
        ),
        (
            {"turns": [{"speaker": "Ada", "text": "Why?"}, {"speaker": "Ben", "text": "So."}]},
            "sharegpt",
        ),
        ({"quote": "Why?", "question": "Why?", "answer": "Because."}, "answers"),
    ],
)
def test_other_sets_keep_their_rows(tmp_path, row, format):
    assert only(tmp_path / "rows", jsonl([row]))[0] == format


BOOK = {
    "book": "The Kitchen",
    "plots": [
        {"text": "Chapter one …", "summary": "A guest asks for soup.", "chapter": "1", "i_p": 0, "state": "finished",
         "key_characters": [{"name": "Oda", "description": "A cook."}],
         "conversation": [
             {"topic": "Bread", "dialogues": [
                 {"character": "Oda", "message": "Bread?"}, {"character": "Guest", "message": "Please."}]},
             {"scenario": "A kitchen at night.", "key_characters": [{"name": "Oda", "motivation": "Sleep."}],
              "dialogues": [
                  {"character": "Environment", "message": "The pot boils."},
                  {"character": "Guest", "message": "[Is she angry?] Is there soup?", "i_u": 0},
                  {"character": "Oda", "message": "[Him again.] (wipes her hands) Always. [Go away.]", "i_u": 1},
                  {"character": "Guest", "message": "[So rude.]"}]}]},
        {"text": "Chapter two …", "summary": "Nobody speaks.", "chapter": "2", "i_p": 1, "state": "finished",
         "key_characters": [], "conversation": []}],
    "character_datasets": {"Oda": {"profile": "A cook.", "plots": []}},
}  # fmt: skip


def test_scenes_of_a_plot_are_dialogues_without_thoughts(tmp_path):
    """As CoSER has them: a book of plots with several scenes each, and a row for each scene with
    its plot.
    """
    book = tmp_path / "book.json"
    rows = tmp_path / "scenes.jsonl"
    book.write_text(json.dumps(BOOK))
    scene = BOOK["plots"][0]["conversation"][1] | {
        "book": "The Kitchen",
        "plot": {"summary": "Long."},
        "i_p": 0,
    }
    rows.write_bytes(jsonl([scene, scene]))
    assert detect_format(book).name == detect_format(rows).name == "scenes"
    soup = [("Environment", "The pot boils."), GUEST, ("Oda*", "(wipes her hands) Always.")]
    for file in (book, rows):
        (first, *others), rejected = everything(file, persona_names=("Oda",))
        assert spoken(first) == soup and first.system == "A kitchen at night."
        assert len(others) == (file is rows) and first.rows == 1
    (bread, other), rejected = everything(book, persona_names=("Guest",))
    assert (
        spoken(bread) == [("Oda", "Bread?"), ("Guest*", "Please.")]
        and bread.system == "A guest asks for soup."
    )
    assert [(it.reason, it.rows) for it in rejected] == [("no scenes", 1)] and (
        bread.rows,
        other.rows,
    ) == (1, 0)
    assert everything(book, persona_names=("Thrip",))[1][0].roles == ("Guest", "Oda"), (
        "whose lines there are"
    )
    broken = [BOOK["plots"][0], BOOK["plots"][0] | {"conversation": ["not a scene"]}]
    book.write_text(json.dumps(BOOK | {"plots": broken}))
    assert [(it.reason, it.row) for it in everything(book)[1]][-1] == ("no scenes", "plots 2")


def roles(*names):
    return jsonl(
        [
            {"role": name, "question": f"Who is {n}?", "answer": f"I am {n}."}
            for n, name in enumerate(names)
        ]
    )


def test_the_lines_of_one_character_are_chosen_by_name(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(roles("Oda", "Thrip", "Oda"))
    used, rejected = everything(path, persona_names=("oda",))
    assert [spoken(c)[1] for c in used] == [("Oda*", "I am 0."), ("Oda*", "I am 2.")]
    assert [(r.row, r.roles) for r in rejected] == [("line 2", ("Thrip",))]
    cook = Persona("cook", "The Cook")
    (named,) = everything(path, persona=cook, persona_names=("Thrip",))[0]
    assert named.messages[1].speaker.id == "cook" and named.messages[1].speaker.name == "The Cook"
    path.write_bytes(jsonl([{"role": "Oda", "context": SCENE}]))  # another speaker of a scene
    assert spoken(everything(path, persona_names=("Guest",))[0][0])[2] == ("Guest*", "Hot?")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (ReadOptions(), r"rows\.jsonl has lines of Oda 2, Thrip 1; it has to be said whose are learned\. Name"),
        (ReadOptions(persona=Persona("ada", "Ada")), r"^Ada never speaks in rows\.jsonl\. Characters found: Oda 2, T"),
    ],
)  # fmt: skip
def test_without_a_name_it_is_asked_for(tmp_path, options, said):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(roles("Oda", "Thrip", "Oda"))
    with pytest.raises(MaterialError, match=said) as caught:
        list(read_usable(path, options))
    assert caught.value.advice == "Name the character with --as."
    path.write_bytes(roles("Oda", "Oda"))
    if not options.persona:  # there is no choice
        assert len(list(read_usable(path, options))) == 2


def test_roles_that_are_jobs_can_be_read_as_an_assistants(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(
        "Role,Question,Answer\nData Scientist,What is a mean?,A sum by a count.\nCook,What is "
        "soup?,Hot.\n"
    )
    used, _ = everything(path, "answers", persona=Persona("ada", "Ada"))
    assert [spoken(c)[1] for c in used] == [
        ("assistant*", "A sum by a count."),
        ("assistant*", "Hot."),
    ]


def test_a_row_that_is_odd_is_rejected_and_the_others_are_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    good = {"role": "Oda", "question": "Who?", "answer": "Me."}
    odd = [
        good | {"role": None},
        good | {"role": "a" * 65},
        good | {"answer": ""},
        good | {"answer": {"a": 1}},
    ]
    path.write_bytes(jsonl([good, *odd, good]))
    used, rejected = everything(path)
    assert len(used) == 2
    assert [r.row for r in rejected] == ["line 2", "line 3", "line 4", "line 5"]
    for item, fact in zip(rejected, ("role: ", "role: ", "no answer", "an object"), strict=True):
        assert item.reason.startswith(fact)


# Quotes, scripts, prompts

QUOTES = [
    "I never burn the soup.",
    "You may sit, but not there.",
    "The lamp is my friend!",
    "Who eats last?",
    "Sit down…",
]
PROMPTS = ["Say something."] * 4 + ["…"]
ODA = Persona("oda", "Oda")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "shape",
    [
        "{}",
        "- {}",
        "3. {}",
        "“{}”",
        "「{}」",
        "Oda: {}",
        "{} — Oda",
        "“{}” ~ Oda",
        '"{}"',
        "* Oda：{}",
    ],
)
def test_a_text_with_one_quote_a_line_is_the_personas(tmp_path, shape, end):
    path = tmp_path / "quotes"
    path.write_bytes(b"\xef\xbb\xbf" + end.join(shape.format(quote) for quote in QUOTES).encode())
    used, rejected = everything(path, persona=ODA)
    assert detect_format(path).name == "quote-list" and not rejected
    assert [c.messages[1].text for c in used] == QUOTES and {
        c.messages[1].speaker.id for c in used
    } == {"oda"}
    assert [c.messages[0].text for c in used] == PROMPTS


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("q.json", json.dumps(QUOTES), "quote-list"),
        ("q.json", json.dumps({"quotes": QUOTES}), "quote-list"),
        ("q.jsonl", "\n".join(map(json.dumps, QUOTES)), "quote-list"),
        ("q.csv", "\n".join(["quote", *QUOTES]), "quotes"),
        (
            "q.csv",
            "\n".join(["Quote;Source", *(f"{quote};The Kitchen" for quote in QUOTES)]),
            "quotes",
        ),
        ("q.csv", "\n".join(["author,quote", *(f'Oda,"{quote}"' for quote in QUOTES)]), "quotes"),
        ("q.json", json.dumps([{"saying": quote, "tags": ["a"]} for quote in QUOTES]), "quotes"),
    ],
)
def test_quotes_in_lists_and_columns_are_the_personas(tmp_path, name, content, format):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    used, rejected = everything(path, persona=ODA)
    assert detect_format(path).name == format and not rejected
    assert [spoken(c) for c in used] == [
        [("user", prompt), ("Oda*", quote)] for prompt, quote in zip(PROMPTS, QUOTES, strict=True)
    ]


def test_quotes_by_several_are_chosen_by_their_authors(tmp_path):
    path = tmp_path / "quotes.json"
    for content in (
        {"Oda": QUOTES[:2], "Thrip": QUOTES[2:]},
        [{"quote": quote, "author": ("Thrip", "Oda")[n < 2]} for n, quote in enumerate(QUOTES)],
        [f"{quote} — {('Thrip', 'Oda')[n < 2]}" for n, quote in enumerate(QUOTES)],
    ):
        path.write_text(json.dumps(content), encoding="utf-8")
        used, rejected = everything(path, persona=ODA)
        assert [c.messages[1].text for c in used] == QUOTES[:2] and {r.roles for r in rejected} == {
            ("Thrip",)
        }


@pytest.mark.parametrize(
    ("quote", "prompt"),
    [("Ta chưa bao giờ làm cháy súp.", "Nói gì đi."), ("我从来不烧焦汤。", "说句话吧。"),
     ("スープは焦がさない。", "何か言って。"), ("Ich habe nie Suppe verbrannt.", "…")],
)  # fmt: skip
def test_the_prompt_is_in_the_language_of_the_quote(tmp_path, quote, prompt):
    _, conversation = only(tmp_path / "q", jsonl([{"quote": quote}]))
    assert conversation.messages[0].text == prompt


def test_a_script_is_talk_between_its_characters(tmp_path):
    path = tmp_path / "script"
    scenes = (
        "Guest: Is there soup?\nOda:「Always.」\n\nIt is hot.\n***\nNarrator: Night.\nOda: Go "
        "home.\nGuest: No."
    )
    path.write_text(scenes, encoding="utf-8")
    first, second = everything(path, persona_names=("Oda",))[0]
    assert detect_format(path).name == "script" and (first.rows, second.rows) == (3, 3)
    assert spoken(first) == [GUEST, ("Oda*", "Always.\nIt is hot.")]
    assert spoken(second)[:2] == [
        ("Narrator", "Night."),
        ("Oda*", "Go home."),
    ] and second.roles == ("Guest", "Oda")
    table = "character,line\n" + "".join(
        f'{("Guest", "Oda")[n % 2]},"Line, number {n}"\n' for n in range(30)
    )
    path.write_text(table, encoding="utf-8")
    used, rejected = everything(path)
    assert (
        [len(c.messages) for c in used] == [24, 6]
        and not rejected
        and detect_format(path).name == "script"
    )
    assert spoken(used[0])[:2] == [("Guest", "Line, number 0"), ("Oda*", "Line, number 1")]
    path.write_text("Q: Who?\nA: Me.\nQ: Why?\nA: So.\n", encoding="utf-8")
    assert spoken(everything(path)[0][0])[:2] == [("user", "Who?"), ("assistant*", "Me.")]


@pytest.mark.parametrize(
    "text",
    [
        "Once there was a clock which stood in\nthe harbour of a town and showed the\ntime to "
        "nobody. It was\nold.",
        "Name: Oda\nAge: 40\nJob: cook\nTown: Skerrow\n",
        "INFO: started\nINFO: running\nERROR: stopped\nINFO: started\n",
        "red\ngreen\nblue\nblack\n",
        '["red", "green", "blue", "black"]',
    ],
)  # fmt: skip
def test_prose_settings_and_words_are_no_quotes(tmp_path, text):
    path = tmp_path / "text"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MaterialError, match=r"in no known format|where an object was expected"):
        detect_format(path)


def test_short_sentences_with_commas_are_no_table(tmp_path):
    path = tmp_path / "quotes.txt"
    path.write_text(
        "\n".join(f"{word} first, soup later." for word in ("Rope", "Bread", "Tea", "Sleep"))
    )
    assert detect_format(path).name == "quote-list" and len(everything(path)[0]) == 4


@pytest.mark.parametrize(
    "content",
    [
        jsonl([{"prompt": "Who are you?"}] * 3),
        jsonl([{"instruction": "Sort.", "input": "b a"}] * 3),
        jsonl([{"question_id": 81, "category": "writing", "turns": ["Write a poem.", "Make it shorter."]}] * 3),
        b"act,prompt\nTravel Guide,I want you to guide me.\nFilm Critic,I want you to judge "
        b"films.\nOld Cook,Cook.\n",
        jsonl([{"conversations": ["Who are you?"], "source": "multi_turn"}] * 3),
        json.dumps(["Who are you?", "Why is that?", "你是谁？"]).encode(),
        b"Who are you?\nWhy is that?\nWhat is soup?\n",
    ],
)  # fmt: skip
def test_prompts_without_answers_are_told_as_that(tmp_path, content, monkeypatch, capsys):
    path = tmp_path / "prompts"
    path.write_bytes(content)
    used, rejected = everything(path)
    assert detect_format(path).name == "prompts" and not used
    assert [r.reason for r in rejected] == ["a prompt without an answer"] * 3
    with pytest.raises(MaterialError, match="a prompt without an answer") as caught:
        list(read_usable(path, ReadOptions()))
    assert "Use them as questions" in caught.value.advice
    code, out, _ = run(monkeypatch, capsys, "inspect", path)
    assert (
        code == 0
        and "\nPrompts without answers: nothing to train on. Use them as questions to a persona"
        in out
    )


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.txt"])
def test_arrays_and_lines_are_told_apart_by_content(tmp_path, name):
    rows = [{"instruction": f"Who is {n}?", "input": "", "output": f"I am {n}."} for n in range(3)]
    for content in (json.dumps(rows), json.dumps(rows, indent=1), jsonl(rows).decode()):
        (tmp_path / name).write_text(content)
        assert [c.messages[1].text for c in everything(tmp_path / name)[0]] == [
            "I am 0.",
            "I am 1.",
            "I am 2.",
        ]


def test_lists_within_lists_are_dialogues(tmp_path):
    path = tmp_path / "rows"
    path.write_text(json.dumps([["Hi", "Hello."], ["Who?", "Me.", "Why?", "So."]]))
    assert [len(c.messages) for c in everything(path)[0]] == [2, 4]
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    path.write_bytes(jsonl([talk, talk * 2]))
    assert [len(c.messages) for c in everything(path)[0]] == [2, 4]
    path.write_text('question,answers\nWho?,"[\'Me.\', \'You.\']"\nWhy?,"[""So."", ""Hm.""]"\n')
    assert [spoken(c)[1][1] for c in everything(path)[0]] == ["Me.", "So."]


# Commands


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["trainer", "dataset", *map(str, words)])
    code = main()
    return code, *capsys.readouterr()


def lines(path):
    return Path(path).read_text(encoding="utf-8").splitlines()


def test_inspect_lists_characters_and_shows_the_lines_of_one(tmp_path, monkeypatch, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(roles("Oda", "Thrip", "Oda"))
    code, out, _ = run(monkeypatch, capsys, "inspect", path)
    assert (
        code == 0
        and "  characters    Oda 2, Thrip 1\n" in out
        and "name one of them with --as." in out
    )
    _, out, _ = run(monkeypatch, capsys, "inspect", path, "--as", "Thrip", "--json")
    found = json.loads(out)
    assert found["roles"] == {"Oda": 2, "Thrip": 1} and found["conversations"] == 1
    assert found["examples"][0]["messages"][1] == {
        "speaker": "Thrip",
        "persona": True,
        "text": "I am 1.",
    }
    _, out, _ = run(monkeypatch, capsys, "inspect", path, "--as", "Nobody")
    assert (
        "conversations            0" in out
        and "name one of them with --as." in out
        and "Expected" not in out
    )
    path.write_text("\n".join(QUOTES))
    _, out, _ = run(monkeypatch, capsys, "inspect", path)
    assert "“Say something.”" in out


def test_a_data_set_is_built_from_roles_and_quotes_and_says_whose(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("ada.toml").write_text('id = "ada"\nname = "Ada"\ndescription = "You are Ada, a cook."\n')
    Path("tales.jsonl").write_bytes(roles(*("The Cook", "Thrip") * 20))
    Path("quotes.txt").write_text("\n".join(sentence(n, 9) + "." for n in range(20)))
    sign(tmp_path / "tales.jsonl", tmp_path / "quotes.txt")
    build = ("build", "--persona", "ada.toml", "--source", "tales.jsonl", "--out", "set")
    code, _, error = run(monkeypatch, capsys, *build)
    assert code == 1 and "Ada never speaks in tales.jsonl" in error
    assert "The Cook 20, Thrip 20" in error
    code, out, error = run(
        monkeypatch, capsys, *build, "--as", "The Cook", "--source", "quotes.txt", "--json"
    )
    summary = json.loads(out)
    assert code == 0 and summary["sources"] == {"tales.jsonl": 20, "quotes.txt": 20}, error
    samples = [
        json.loads(line) for side in ("train", "eval") for line in lines(f"set/{side}.jsonl")
    ]
    assert {sample["kind"] for sample in samples} == {"persona"}
    assert sum(sample["messages"][-2]["content"].endswith(": …") for sample in samples) == 20


FOUR_SOURCES = {
    "persona": [("Who are you?", "", "I am Oda {n}, a cook."), ("What is {n} to you?", "", "A number, nothing more.")],
    "quotes": [("Say line {n}.", "", "Soup number {n} never burns.")],
    "turns": [("What did he mean?", "Guest: Is there soup {n}?\nOda: Always.\n\nGuest: Hot?", "He is hungry, {n}.")],
    "qa": [("Sort these words:", "rope {n}\nbread {n}", "bread {n}\nrope {n}"), ("Sum up:", "  {n} + 1", "{n}1")],
}  # fmt: skip


def test_what_is_built_of_alpaca_rows_is_exported_field_by_field_as_it_came(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    before = []
    sources = []
    for name, shapes in FOUR_SOURCES.items():
        rows = [
            dict(
                zip(
                    ("instruction", "input", "output"),
                    (text.format(n=n) for text in shape),
                    strict=True,
                )
            )
            for n in range(100, 112)
            for shape in shapes
        ]
        Path(f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
        before += [{key: text.strip() for key, text in row.items()} for row in rows]
        sources += ["--source", f"{name}.json"]
    sign(*(tmp_path / f"{name}.json" for name in FOUR_SOURCES))
    assert run(monkeypatch, capsys, "build", *sources, "--out", "set")[0] == 0
    after = []
    for side in ((), ("--eval",)):
        assert (
            run(monkeypatch, capsys, "export", "set", "--to", "alpaca", "--out", "out.json", *side)[
                0
            ]
            == 0
        )
        after += json.loads(Path("out.json").read_text(encoding="utf-8"))
    assert not lines("set/dropped.jsonl") and sorted(after, key=str) == sorted(before, key=str)
