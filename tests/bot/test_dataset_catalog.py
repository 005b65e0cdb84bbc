"""The catalogue: names in, material with its rights out; what is not in it, or not allowed, is
refused.
"""

import json
from pathlib import Path

import pytest

from bot.training.dataset_catalog import DatasetCatalog
from bot.training.request_materials import NoChatLogError, gather_materials
from personas.card.toml_card import SHIPPED_CARDS, read_cards
from personas.errors import AdapterError, CardError, MaterialError, RequestError, UnderstudyError
from personas.home.data_subjects import Consent, write_consent
from personas.home.job_material import ShippedData
from personas.schemas.training import TrainingRequest

RIGHT = (
    '["{name}"]\nright = "{right}"\nstated_by = "me"\nstated_on = 2026-11-20\nwhy = "I wrote it."\n'
)


def state_rights(folder, *names, right="own-writing"):
    (folder / "rights.toml").write_text(
        "\n".join(RIGHT.format(name=name, right=right) for name in names)
    )


@pytest.fixture
def shipped(tmp_path):
    """A source tree with two personas, of which one has lore, and two general data sets."""
    shipped = ShippedData.of(tmp_path, cards=tmp_path / "cards")
    for folder in (*vars(shipped).values(), shipped.lore / "oda", shipped.lore / "_world"):
        folder.mkdir(parents=True, exist_ok=True)
    for persona in ("oda", "thrip"):
        (shipped.cards / f"{persona}.toml").write_text(
            f'id = "{persona}"\nname = "The {persona}"\n'
        )
        (shipped.logs / f"{persona}.json").write_text("{}")
    for name in ("chat", "facts"):
        (shipped.general / f"{name}.jsonl").write_text("{}")
    for recipe in ("demo-cpu", "slow"):
        (shipped.recipes / f"{recipe}.toml").touch()
    for owner in ("oda", "_world"):
        (shipped.lore / owner / "notes.md").write_text("# Notes\nSome.")
    state_rights(shipped.logs, "oda.json", "thrip.json")
    state_rights(shipped.general, "chat.jsonl", "facts.jsonl", right="licensed:CC0")
    return shipped


@pytest.fixture
def catalogue(shipped, tmp_path):
    return DatasetCatalog(shipped, "embedded", tmp_path)


def request(persona="oda", **more):
    return TrainingRequest(job_name="j", persona=persona, **more)


def dialogue(**more):
    return TrainingRequest(job_name="j", task_type="dialogue", **more)


def test_the_names(catalogue):
    assert catalogue.datasets() == ["general-chat", "general-facts", "oda", "thrip"]
    assert catalogue.recipes() == ["demo-cpu", "slow"]


def test_a_persona_learns_from_its_own(catalogue, shipped):
    card, log, lore, chat, facts = gather_materials(catalogue, request())
    assert (card.kind, card.copies) == ("card", ((shipped.cards / "oda.toml", "oda.toml"),))
    assert (log.kind, log.copies) == ("log", ((shipped.logs / "oda.json", "logs/oda.json"),))
    assert (log.right, log.statement.stated_by, log.origin) == (
        "own-writing",
        "me",
        "logs/oda.json",
    )
    assert log.arrived == log.statement.stated_on == "2026-11-20"
    assert (lore.kind, lore.path) == ("lore", "lore")
    files = [f"{owner}/notes.md" for owner in ("_world", "oda")]
    assert lore.copies == tuple((shipped.lore / file, f"lore/{file}") for file in files)
    assert [(item.kind, item.path, item.right) for item in (chat, facts)] == [
        ("general", "general/chat.jsonl", "licensed:CC0"),
        ("general", "general/facts.jsonl", "licensed:CC0"),
    ]


def ship_dialogues(shipped):
    (shipped.synthetic / "oda_synthetic.jsonl").write_text("{}")
    state_rights(shipped.synthetic, "oda_synthetic.jsonl")


def test_lore_pairs_take_the_lore_and_the_synthesised_dialogues(catalogue, shipped, tmp_path):
    def materials(**more):
        return {it.path: it for it in gather_materials(catalogue, request(**more))}

    ship_dialogues(shipped)
    assert "oda_synthetic" in catalogue.datasets() and catalogue.dialogues() == [
        "general-chat",
        "general-facts",
    ]
    assert not any(it.kind == "pairs" for it in materials().values()), "they are an option"
    assert {"logs/oda.json", "lore", "synthetic/oda_synthetic.jsonl"} <= materials(
        lore_pairs=0.3
    ).keys()
    alone = materials(lore_pairs=1)
    pairs = alone["synthetic/oda_synthetic.jsonl"]
    assert (pairs.kind, pairs.right, pairs.statement.stated_by) == ("pairs", "own-writing", "me")
    assert not any(it.kind == "log" for it in alone.values()), "lore alone"
    named = materials(dataset="oda_synthetic", lore_pairs=0.5)
    assert named["synthetic/oda_synthetic.jsonl"].kind == "log", "not twice"
    (tmp_path / "more.jsonl").write_text("{}")
    (tmp_path / "catalogue.toml").write_text(
        '[oda_synthetic_2]\npath = "more.jsonl"\n'
        + RIGHT.format(name="x", right="form").partition("\n")[2]
    )
    assert materials(lore_pairs=1)["named/oda_synthetic_2.jsonl"].right == "form"
    (shipped.synthetic / "rights.toml").unlink()
    with pytest.raises(
        MaterialError,
        match=r"oda_synthetic\.jsonl .*stated a right",
    ):
        gather_materials(catalogue, request(lore_pairs=1))


def test_a_card_alone_is_enough_to_train_from(catalogue, shipped, tmp_path):
    own = tmp_path / "personas" / "77" / "mira-25" / "card.toml"
    own.parent.mkdir(parents=True)
    own.write_text('id = "mira-25"\nname = "Mira"\n')
    kinds = {
        it.kind
        for it in gather_materials(catalogue, request("mira-25", from_card=1, recipe="slow"))
    }
    assert {"card", "general"} <= kinds and not {"log", "pairs"} & kinds
    mixed = gather_materials(catalogue, request(from_card=0.5, recipe="slow"))
    assert {it.kind for it in mixed} == {"card", "log", "lore", "general"}
    for file in shipped.lore.rglob("*.md"):
        file.unlink()
    assert gather_materials(catalogue, request("thrip", from_card=1, recipe="slow"))


def test_a_persona_without_lore_has_no_pairs(catalogue, shipped):
    ship_dialogues(shipped)
    for file in shipped.lore.rglob("*.md"):
        file.unlink()
    with pytest.raises(RequestError, match=r"The thrip has no lore .* leave lore_pairs out\."):
        gather_materials(catalogue, request("thrip", lore_pairs=0.5))
    with pytest.raises(RequestError, match=r"The thrip has no lore .* two passages .*`dataset`"):
        gather_materials(catalogue, request("thrip", lore_pairs=1))
    with pytest.raises(RequestError, match="'oda_synthetic' is a log"):
        gather_materials(catalogue, request("thrip", general="oda_synthetic", recipe="slow"))


def test_an_imported_persona_is_asked_to_name_a_data_set(catalogue, shipped, tmp_path):
    own = tmp_path / "personas" / "77" / "mira-25" / "card.toml"
    own.parent.mkdir(parents=True)
    own.write_text('id = "mira-25"\nname = "Mira"\n')
    with pytest.raises(NoChatLogError, match=r"Mira has no chat log .*`dataset`") as raised:
        gather_materials(catalogue, request("mira-25"), 77)
    assert "mira-25" not in str(raised.value) and "/persona lore add" in raised.value.advice
    assert "`/finetune start from:card`" in raised.value.advice and "HTTP" not in str(raised.value)
    with pytest.raises(RequestError, match=r"Mira has no chat log .*“Learns from”") as raised:
        gather_materials(catalogue, request("mira-25"))
    assert "/finetune" not in str(raised.value) and "Over HTTP: `from_card` 1" in str(raised.value)
    assert gather_materials(catalogue, request("mira-25", dataset="oda"))
    for file in shipped.lore.rglob("*.md"):
        file.unlink()
    with pytest.raises(RequestError, match="Mira has no lore") as raised:
        gather_materials(catalogue, request("mira-25", lore_pairs=1))
    assert "mira-25" not in str(raised.value)


def test_the_operator_says_who_the_persona_is_in_a_log(catalogue, tmp_path):
    entry = (
        RIGHT.format(name="quay", right="own-writing")
        + 'path = "quay.json"\npersona_names = ["Wick", "42"]\n'
    )
    (tmp_path / "catalogue.toml").write_text(entry)
    (tmp_path / "quay.json").write_text("{}")
    log = next(
        item for item in gather_materials(catalogue, request(dataset="quay")) if item.kind == "log"
    )
    assert log.to_material("0").persona_names == ("Wick", "42")
    (tmp_path / "catalogue.toml").write_text(entry.replace('["Wick", "42"]', '"Wick"'))
    with pytest.raises(RequestError, match=r"quay.*persona_names"):
        gather_materials(catalogue, request(dataset="quay"))


def test_a_named_log_and_a_persona_without_lore(catalogue, shipped):
    (shipped.lore / "_world" / "notes.md").unlink()
    materials = gather_materials(catalogue, request("thrip", dataset="oda"))
    assert [item.path for item in materials if item.kind in ("log", "lore")] == ["logs/oda.json"]


def test_a_dialogue_learns_from_messages_and_is_measured_on_others(catalogue):
    materials = gather_materials(catalogue, dialogue(dataset="general-chat"))
    assert [(item.kind, item.path) for item in materials] == [
        ("messages", "general/chat.jsonl"),
        ("general", "general/facts.jsonl"),
    ]


def test_with_one_general_data_set_a_dialogue_is_measured_on_it(catalogue, shipped):
    (shipped.general / "facts.jsonl").unlink()
    materials = gather_materials(catalogue, dialogue(dataset="general-chat"))
    assert [(item.kind, item.path) for item in materials] == [
        ("messages", "general/chat.jsonl"),
        ("general", "general/chat.jsonl"),
    ]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (request("odda"), "'odda'. Known: oda, thrip."),
        (
            request(dataset="trip"),
            "'trip'. Known: thrip, general-chat, general-facts, oda",
        ),
        (request(dataset="../secrets"), "no data set '../secrets'"),
        (request(dataset="rights"), "no data set 'rights'"),
        (request(dataset="general-chat"), "has no speakers"),
        (request(dataset_path="/etc/passwd"), "A path cannot be named here"),
        (
            request(base_model="Qwen/Qwen2.5-3B"),
            "(Qwen/Qwen2.5-3B) cannot be served here. Leave the base model out",
        ),
        (request(recipe="demo"), "'demo'. Known: demo-cpu, slow."),
        (dialogue(), "Known: general-chat, general-facts."),
        (dialogue(dataset="oda"), "'oda' is a log"),
        (dialogue(dataset="general-cat"), "'general-cat'. Known: general-chat"),
    ],
)
def test_what_cannot_be_had_is_refused_with_what_can(catalogue, asked, words):
    with pytest.raises(RequestError) as refused:
        gather_materials(catalogue, asked, guild_id=7)
    assert words in str(refused.value)


ENTRY = (
    '["{name}"]\n{where}\nright = "{right}"\nstated_by = "me"\nstated_on = 2026-11-20\nwhy = "so"\n'
)


def enter(tmp_path, name, where='path = "mine.jsonl"', right="licensed:CC0", more=""):
    (tmp_path / "mine.jsonl").write_text("{}")
    with (tmp_path / "catalogue.toml").open("a") as file:
        file.write(ENTRY.format(name=name, where=where, right=right) + more + "\n")


def test_the_operators_data_sets_can_be_named_too(catalogue, tmp_path):
    enter(tmp_path, "harbour talk", more='format = "messages"')
    assert catalogue.datasets() == ["general-chat", "general-facts", "harbour talk", "oda", "thrip"]
    log = gather_materials(catalogue, request(dataset="harbour talk"))[1]
    assert (log.kind, log.path, log.origin, log.right, log.statement.stated_by) == (
        "log", "named/harbour talk.jsonl", "harbour talk", "licensed:CC0", "me",
    )  # fmt: skip
    assert (
        log.copies == ((tmp_path / "mine.jsonl", log.path),)
        and log.to_material("0").format == "messages"
    )
    assert gather_materials(catalogue, dialogue(dataset="harbour talk"))[0].kind == "messages"
    (tmp_path / "catalogue.toml").write_text("")
    assert "harbour talk" not in catalogue.datasets(), "it is read anew each time"


@pytest.mark.parametrize(
    ("name", "where", "right", "words"),
    [
        ("api", 'path = "mine.jsonl"', "discord-api", "came through Discord's API"),
        (
            "mine",
            'path = "mine.jsonl"',
            "finders-keepers",
            "right, 'finders-keepers'",
        ),
        (
            "bare",
            'path = "mine.jsonl"',
            "licensed",
            "such as licensed:CC-BY-4.0",
        ),
        ("both", 'path = "mine.jsonl"\nhub = "a/b"', "form", "either path or hub"),
        ("neither", "", "form", "either path or hub"),
        ("hub", 'hub = "one/two/three"', "form", "not of the form owner/name"),
        ("number", "path = 3", "form", "is not text"),
        ("more", 'path = "mine.jsonl"\nrite = 1', "form", "has unknown fields: rite"),
        ("gone", 'path = "gone.jsonl"', "form", "'gone' does not exist"),
        ("far", 'hub = "nobody/nothing"', "form", "has not been fetched"),
        ("oda", 'path = "mine.jsonl"', "form", ""),
    ],
)
def test_an_entry_with_a_fault_is_reported_and_leaves_the_others(
    catalogue, tmp_path, caplog, name, where, right, words
):
    enter(tmp_path, "good")
    enter(tmp_path, name, where, right)
    for _ in range(2):
        assert "good" in catalogue.datasets()
    if words:
        with pytest.raises(UnderstudyError) as refused:
            gather_materials(catalogue, request(dataset=name))
        assert words in str(refused.value) and str(tmp_path) not in str(refused.value)
    else:
        assert gather_materials(catalogue, request(dataset=name))[1].path == "logs/oda.json", (
            "what ships keeps its name"
        )
    assert len(caplog.records) <= 1, "each fault is logged once"
    assert gather_materials(catalogue, request(dataset="good"))[1].path == "named/good.jsonl"


def test_a_catalogue_that_cannot_be_read_leaves_what_ships(catalogue, tmp_path, caplog):
    (tmp_path / "catalogue.toml").write_text("[broken")
    assert catalogue.datasets() == ["general-chat", "general-facts", "oda", "thrip"]
    assert "catalogue.toml cannot be read" in caplog.text


def test_where_there_is_nothing_it_says_so(catalogue, shipped):
    for recipe in shipped.recipes.iterdir():
        recipe.unlink()
    with pytest.raises(RequestError, match="There are none"):
        gather_materials(catalogue, request())


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        '["thrip.json"]\nright = "own-writing"',
        RIGHT.format(name="oda.json", right="discord-api"),
    ],
)
def test_a_log_without_a_stated_right_counts_as_taken_from_discord(catalogue, shipped, text):
    (shipped.logs / "rights.toml").unlink()
    if text is not None:
        (shipped.logs / "rights.toml").write_text(text)
    with pytest.raises(MaterialError, match="Discord's API") as refused:
        gather_materials(catalogue, request())
    advice = refused.value.advice
    assert (
        "rights.toml beside it" in advice
        and '["oda.json"]' in advice
        and str(shipped.logs) not in advice
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[broken", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (
            RIGHT.format(name="oda.json", right="finders-keepers").encode(),
            "right, 'finders-keepers'",
        ),
        (
            RIGHT.format(name="oda.json", right="licensed").encode(),
            "such as licensed:CC-BY-4.0",
        ),
        (b'["oda.json"]\nright = "form"\nwhy = "so"', "leaves out stated_by, stated_on"),
        (
            b'["oda.json"]\nright = "form"\nwhy = "so"\nstated_by = "me"\nstated_on = "soon"',
            "stated_on that is no date",
        ),
    ],
)
def test_rights_that_cannot_be_read_stop_the_training(catalogue, shipped, content, words):
    (shipped.logs / "rights.toml").write_bytes(content)
    with pytest.raises(MaterialError, match=words):
        gather_materials(catalogue, request())


def test_a_card_that_cannot_be_read_is_named(catalogue, shipped):
    (shipped.cards / "new.toml").write_text("id = ")
    with pytest.raises(CardError, match=r"new\.toml"):
        gather_materials(catalogue, request())


def test_everything_that_ships_can_be_trained_on(tmp_path):
    shipped = ShippedData.from_source_tree()
    catalogue = DatasetCatalog(shipped, "embedded", tmp_path)
    for persona in read_cards(SHIPPED_CARDS):
        materials = gather_materials(catalogue, request(persona))
        kinds = {"card", "log", "lore", "general", "general-training"}
        assert {item.kind for item in materials} == kinds
        assert all(Path(source).exists() for item in materials for source, _ in item.copies)


# ---------------------------------------------------------------------------------- built data sets


def built_set(folder, **rights):
    """A folder as `dataset build` makes it, as far as the bot looks."""
    folder.mkdir()
    (folder / "train.jsonl").write_text("{}")
    (folder / "stats.json").write_text(
        json.dumps({"by_right": {name.replace("_", "-"): n for name, n in rights.items()}})
    )


def test_a_built_set_says_its_rights_itself_by_path_and_by_name(catalogue, tmp_path):
    built_set(tmp_path / "ours", own_writing=7, form=2)
    entry = RIGHT.format(name="quay", right="own-writing") + 'path = "ours"\n'
    (tmp_path / "catalogue.toml").write_text(entry)
    for asked in (
        request(dataset_path="ours"),
        request(dataset="quay"),
        dialogue(dataset_path="ours"),
    ):
        material = next(
            item for item in gather_materials(catalogue, asked) if item.kind == "dataset"
        )
        assert (material.right, material.copies[0][0]) == ("licensed:mixed", tmp_path / "ours")
        assert "form 2, own-writing 7" in material.statement.why
        assert not any(
            item.kind in ("log", "messages") for item in gather_materials(catalogue, asked)
        )


@pytest.mark.parametrize("named", [{"dataset_path": "theirs"}, {"dataset": "quay"}])
def test_a_built_set_of_discords_talk_asks_again_whatever_is_said_of_it(catalogue, tmp_path, named):
    built_set(tmp_path / "theirs", own_writing=7, discord_api=1)
    (tmp_path / "catalogue.toml").write_text(
        RIGHT.format(name="quay", right="form") + 'path = "theirs"\n'
    )
    state_rights(tmp_path, "theirs")
    with pytest.raises(MaterialError, match="DISCORD_PERMISSION"):
        gather_materials(catalogue, request(**named))
    write_consent(tmp_path, Consent(permission="Discord's letter", opted_in=frozenset(["7"])))
    assert any(
        item.right == "discord-api" for item in gather_materials(catalogue, request(**named))
    )


@pytest.mark.parametrize("stats", ["{", "[]", '{"by_right": {}}', '{"by_right": {"stolen": 3}}'])
def test_a_built_set_that_does_not_say_its_rights_is_none(catalogue, tmp_path, stats):
    built_set(tmp_path / "ours", own_writing=7)
    (tmp_path / "ours" / "stats.json").write_text(stats)
    with pytest.raises(MaterialError, match="Build the data set again"):
        gather_materials(catalogue, request(dataset_path="ours"))


def test_a_persona_gets_the_general_dialogue_that_ships_to_be_trained_on(catalogue, shipped):
    (shipped.general_training / "dialogue.jsonl").write_text("{}")
    state_rights(shipped.general_training, "dialogue.jsonl")

    def trained_on(request):
        materials = gather_materials(catalogue, request)
        return [it.path for it in materials if it.kind == "general-training"]

    assert trained_on(request()) == ["general-training/dialogue.jsonl"]
    assert trained_on(request(general="general-chat")) == []
    assert trained_on(dialogue(dataset="general-chat")) == []
    assert "general-dialogue" not in catalogue.datasets()


def test_general_dialogue_to_mix_in_is_not_what_forgetting_is_measured_on(catalogue, shipped):
    kinds = [
        (item.kind, item.path)
        for item in gather_materials(catalogue, request(general="general-chat"))
    ]
    assert kinds[-2:] == [("messages", "general/chat.jsonl"), ("general", "general/facts.jsonl")]
    with pytest.raises(RequestError, match="'thrip' is a log"):
        gather_materials(catalogue, request(general="thrip"))


def test_a_dialogue_adapter_to_start_from_is_found_whole_or_refused(catalogue, tmp_path):
    with pytest.raises(RequestError, match="no dialogue adapter 'chat'"):
        gather_materials(catalogue, request(start_from="chat"))
    (tmp_path / "models" / "dialogue" / "chat").mkdir(parents=True)
    with pytest.raises(AdapterError, match="no complete adapter"):
        gather_materials(catalogue, request(start_from="chat"))
