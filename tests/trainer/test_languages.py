"""Vietnamese and Chinese personas: lore extracted and found, dialogues synthesised, a score card in
their language.

What a language lacks is stated.
"""

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from personas.card.toml_card import read_card
from personas.errors import LoreError
from personas.lore.index import LoreIndex
from personas.lore.lore_folder import read_lore
from personas.lore.minilm import load_encoder, load_minilm
from personas.lore.passages import WORLD, Passage, split_passages
from personas.schemas.chat import Persona
from personas.schemas.scorecard import ScoreCard
from tests.hub_server import reach
from tests.trainer.job_folders import dialogues, write_request
from tests.trainer.lore_server import serving
from trainer.dataset.job_inputs import JobInputs, questions_to_write
from trainer.dataset.synthetic.dialogue_synthesis import (
    SynthesisRequest,
    plan_attempt,
    synthesise_dialogues,
    trim_to_sentence,
)
from trainer.dataset.synthetic.lore_extraction import extract_lore
from trainer.dataset.synthetic.lore_subjects import find_subject
from trainer.dataset.synthetic.measuring_questions import reserved_questions
from trainer.dataset.synthetic.number_words import find_numbers
from trainer.dataset.synthetic.question_bank import LORE, draw_questions
from trainer.dataset.synthetic.reply_backends import choose_backend
from trainer.dataset.synthetic.reply_filter import ReplyFilter
from trainer.evaluate.generation.lore_facts import fact_questions
from trainer.evaluate.generation.reply_sections import missing_in_language
from trainer.evaluate.generation.reply_tasks import read_small_talk
from trainer.evaluate.generation.safety import safety_trials
from trainer.evaluate.generation.text_metrics import has_shared_run
from trainer.languages import detect_main_language
from trainer.recipe.recipe_file import load_recipe
from trainer.run import run_job
from trainer.train.training_run import RunControl

HERE = Path(__file__).parent
FOLDERS = {"vi": HERE / "vietnamese", "zh": HERE / "chinese"}
CARDS = {"vi": FOLDERS["vi"] / "nam-do.toml", "zh": FOLDERS["zh"] / "amei.toml"}
PERSONAS = {language: read_card(card) for language, card in CARDS.items()}
PASSAGES = {
    language: tuple(read_lore(FOLDERS[language] / "lore", (persona, WORLD)))
    for language, persona in PERSONAS.items()
}
CRANE = Persona(
    "kran", "Der Kran Ballast", description="Du bist ein alter Kran am Hafen und wiegst Laternen."
)
CRANE_LORE = (
    "# Kran\n\n## Gewicht\nDer Kran wiegt dreiundachtzig Tonnen und steht auf vier Füßen am "
    "Kai.\n\n"
    "## Nebel\nVor Nebel fürchtet er sich sehr, weil er dann die Schiffe nicht zählen kann.\n"
)


@pytest.mark.parametrize(
    ("language", "spoken", "question", "not_hers"),
    [
        ("vi", "Ngọn đèn bão treo trên mui do má bà để lại", "Ông Tám Cồn là ai vậy?", "bà Năm"),
        ("zh", "门口的红灯是老身的母亲留下的", "老周是你什么人？", "阿梅婆婆"),
    ],
)
def test_extract_makes_pairs_in_the_language_of_the_lore(
    command, tmp_path, language, spoken, question, not_hers
):
    words = (
        "--persona",
        CARDS[language],
        "--lore",
        FOLDERS[language] / "lore",
        "--out",
        tmp_path / "out",
        "--json",
    )
    code, output, errors = command("lore", "extract", *map(str, words))
    assert code == 0, errors
    counts = json.loads(output)
    assert counts["questions"] >= 7 and counts["dialogues"] >= 3 and counts["style"] >= 1
    file = tmp_path / "out" / f"{PERSONAS[language].id}_lore.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    messages = [message for row in rows for message in row["messages"]]
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    assert any(spoken in answer for answer in answers) and not any(
        not_hers in answer for answer in answers
    )
    assert question in [message["content"] for message in messages]
    assert {detect_main_language([message["content"] + answers[0]]) for message in messages} == {
        language
    }
    assert all(row["provenance"] for row in rows)


def test_a_pronoun_that_may_be_somebody_elses_is_left_alone():
    persona = PERSONAS["zh"]
    lore = "# 熟人\n\n## 灯\n阿梅婆婆有个妹妹。她住在河边。阿梅婆婆等妹妹回来，她每晚点灯。\n"
    found = extract_lore(persona, split_passages(persona.id, "amei/a.md", lore))
    assert [fact.spoken for fact in found.facts] == ["老身有个妹妹。", None, None]
    assert sum(found.left_out.values()) == 2
    subject = find_subject(persona, split_passages(persona.id, "amei/a.md", lore))
    assert subject.to_first_person("阿梅婆婆把她扶上船。") == "老身把她扶上船。", (
        "the object of her own clause"
    )
    subject = find_subject(PERSONAS["vi"], PASSAGES["vi"])
    assert subject.to_first_person("Bà Bảy bán cá ngoài chợ.") is None, "another woman's title"
    assert subject.to_first_person("Bà nói “bà Năm đây”.") is None, "a quotation"


def test_a_language_without_rules_is_listed_as_facts_and_named():
    found = extract_lore(CRANE, split_passages("kran", "kran/a.md", CRANE_LORE))
    assert len(found.facts) == 2 and found.pairs == ()
    ((reason, facts),) = found.left_out.items()
    assert facts == 2 and "in German" in reason and "data/languages" in reason
    request = SynthesisRequest(
        CRANE, tuple(split_passages("kran", "kran/a.md", CRANE_LORE)), 1, Path("out")
    )
    assert {plan_attempt(request, number).questions for number in range(2)} == {
        ("Gewicht?",),
        ("Nebel?",),
    }


REPLIES = {
    "vi": {
        "đò": "Mui đò này bà lợp lá dừa nước đó cưng. {}",
        "chuyến": "Bà chỉ lấy câu chuyện thật thôi nghen. {}",
        "cầu": "Cây cầu mới bốn trụ, cò trắng ở đông hơn thợ. {}",
        "mèo": "Con mèo nằm trên mạn đò, nó sợ vịt lắm. {}",
        "ông": "Phần ông Năm, cơm bà vẫn để dành đó. {}",
        "": "Cháu ngoại bà cuối tuần mới về tới bến. {}",
    },
    "zh": {
        "红灯": "红灯是老身母亲留下的，黄昏要添油哩。{}",
        "价钱": "现钱老身不要，真话记进账簿就行哩。{}",
        "雾": "起雾那天老身的灯才有用哩。{}",
        "竹篾": "冬至以后砍的竹子，老身才肯劈哩。{}",
        "老周": "老周卖豆花，欠老身的话还没还哩。{}",
        "": "老身说话慢，先添油再开口哩。{}",
    },
}
ASIDES = {
    "vi": ("Gió Nước Trăng Sương Khói Cá Ếch Đò Lá Mưa Chim Đèn", "về ngủ chờ rơi qua lặn kêu nằm bay tắt",
           "ngoài vàm,trên mui,dưới bần,cuối xóm,sau hè,giữa dòng", " {} {} {} rồi."),
    "zh": ("燕子 石板 铜壶 窗纸 屋檐 井水 蓝布 青苔 豆香 梆子 月亮 树影",
           "睡了 醒着 响着 凉了 湿透 散开 晃着 停住 落下 没动",
           "在巷口,在桥头,在墙根,在对门,在街角,在后院", "{}{}{}。"),
}  # fmt: skip
BAD = {
    "vi": [
        ("in another language", "I am rowing the boat across the river, dear."),
        ("refuses", "Tôi rất tiếc nhưng không thể giúp cưng chuyện con đò này."),
        ("breaks character", "Bà là một mô hình ngôn ngữ nên không có đò."),
        ("contradicts card or lore", "Cây cầu đó có chín cái trụ rồi, bà đếm hoài nghen."),
    ],
    "zh": [
        ("in another language", "The red lamp was my mother's, child, and I fill it."),
        ("refuses", "抱歉，这盏红灯的事老身无法回答你。"),
        ("breaks character", "作为一个人工智能，我没有灯笼铺。"),
        ("contradicts card or lore", "门口的红灯点了九十五年，老身一天也没歇哩。"),
        ("speaks of itself as of another", "阿梅婆婆的红灯每天黄昏都要添油哩。"),
    ],
}


def aside(language, call):
    """Two sentences that no other call has."""
    nouns, verbs, places, sentence = ASIDES[language]
    nouns = nouns.split()
    verbs = verbs.split()
    places = places.split(",")
    first = call * 7
    second = call * 11 + 5
    order = (
        (lambda *words: words)
        if language == "vi"
        else (lambda noun, verb, place: (noun, place, verb))
    )
    return "".join(
        sentence.format(*order(nouns[n % 12], verbs[n % 10], places[n // 3 % 6]))
        for n in (first, second)
    ).strip()


def scripted(language):
    """A model that answers badly at first, then well."""
    bad = iter([reply for _, reply in BAD[language]])
    calls = iter(range(10**6))

    def script(body):
        if (reply := next(bad, None)) is not None:
            return reply
        heading = body["messages"][-1]["content"].split("]")[0].casefold()
        good = next(
            reply for key, reply in REPLIES[language].items() if key in heading.split(": ")[-1]
        )
        return good.format(aside(language, next(calls)))

    return script


def read_journal(folder):
    [journal] = folder.glob("*_synthetic.attempts.jsonl")
    return [json.loads(line) for line in journal.read_text("utf-8").splitlines()[1:]]


@pytest.mark.parametrize("language", FOLDERS)
async def test_synthesis_keeps_dialogues_in_the_language_and_counts_faults(tmp_path, language):
    request = SynthesisRequest(PERSONAS[language], PASSAGES[language], 3, tmp_path / "out")
    async with serving(scripted(language)) as endpoint:
        backend = choose_backend(endpoint.url, "tester", None)
        result = await asyncio.to_thread(synthesise_dialogues, request, replace(backend, at_once=1))
    assert (
        result["kept"] == 3
        and len({reason for reason, _ in BAD[language]} & result["dropped"].keys()) >= 3
    ), result
    rows = [line["row"] for line in read_journal(tmp_path / "out") if not line["dropped"]]
    texts = [message["content"] for row in rows for message in row["messages"]]
    assert detect_main_language(texts) == language and not any("evening" in text for text in texts)


@pytest.mark.parametrize("language", FOLDERS)
def test_each_fault_is_found_by_itself(language):
    judge = ReplyFilter(PERSONAS[language], PASSAGES[language])
    about = PASSAGES[language][0]
    for reason, reply in BAD[language]:
        assert judge.fault(reply, "…", about) == reason, reply
    assert (
        judge.fault(next(iter(REPLIES[language].values())).format("").strip(), "…", about) is None
    )


def test_world_lore_in_the_personas_language_is_used_whatever_its_letters():
    persona = PERSONAS["zh"]
    own = PASSAGES["zh"]
    world = (
        Passage(WORLD, "_world/zh.md", "渡口", "渡口的老船每天开四趟，风大的日子只开一趟。"),
        Passage(
            WORLD,
            "_world/en.md",
            "Ferry",
            "The ferry — the old one — leaves four times a day, café hours aside.",
        ),
    )
    request = SynthesisRequest(persona, (*own, *world), 1, Path("out"))
    used = {plan_attempt(request, number).passage for number in range(60)}
    assert world[0] in used and world[1] not in used
    english = SynthesisRequest(
        Persona("ada", "Ada", description="You keep the clock."), world, 1, Path("out")
    )
    assert {plan_attempt(english, number).passage for number in range(9)} == {world[1]}


def test_a_cut_reply_ends_after_its_last_whole_sentence():
    assert trim_to_sentence("灯亮着。雾散了！老身正要") == "灯亮着。雾散了！"
    assert trim_to_sentence("“灯亮着。”她说，然后") == "“灯亮着。”"
    assert trim_to_sentence("Đèn còn sáng. Bà đang") == "Đèn còn sáng."


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("点了六十一年，共两千三百四十段，一万二千人，二零二四", {61, 2340, 12_000, 2024}),
        ("泡49天，一起，千万别", {49}),
        ("ba ngàn bốn trăm mười hai chuyện, mười chín năm, hai mươi lăm người", {3412, 19, 25}),
        ("một trăm lẻ năm", {100}),
    ],
)
def test_numbers_are_read_in_words(text, numbers):
    assert find_numbers(text) == numbers


@pytest.mark.parametrize(
    ("language", "question", "heading"),
    [
        ("vi", "cháu gái bà đi học ở đâu vậy", "Con Lụa"),
        ("vi", "chiếc ghe của bà đóng bằng gỗ gì", "Chiếc đò Bông Súng"),
        ("vi", "ong Tam Con trong oi o dau", "Ông Tám Cồn"),
        ("zh", "门前那盏灯是谁留给你的？", "红灯"),
        ("zh", "账本里记了多少故事？", "价钱"),
        ("zh", "卖豆花的邻居欠你什么？", "老周"),
    ],
)
def test_lore_is_found_by_questions_in_other_words(language, question, heading):
    index = LoreIndex(PASSAGES[language])
    assert heading in index.search(PERSONAS[language].id, question)[0].heading


@pytest.mark.parametrize("language", FOLDERS)
def test_small_talk_finds_no_lore(language):
    index = LoreIndex(PASSAGES[language])
    assert [
        line for line in read_small_talk(language) if index.search(PERSONAS[language].id, line)
    ] == []


def test_other_languages_are_found_by_parts_of_words():
    lighthouse = (
        "# Маяк\n\n## Лампа\nЛампу зажигает старый смотритель Прохор.\n\n## Чайка\nЧайка ворует "
        "сушёную рыбу.\n\n"
        "## Туман\nВ тумане он звонит в колокол.\n"
    )
    index = LoreIndex(split_passages("prokhor", "prokhor/a.md", lighthouse))
    assert index.search("prokhor", "когда зажигают лампы?")[0].heading == "Маяк: Лампа"
    assert index.search("prokhor", "зачем звонить в колокола?")[0].heading == "Маяк: Туман"
    assert index.search("prokhor", "спокойной ночи") == []
    crane = LoreIndex(split_passages("kran", "kran/a.md", CRANE_LORE))
    assert (
        not load_minilm().can_read(CRANE_LORE)
        and crane.search("kran", "erzähl doch mal einen Witz") == []
    )
    assert crane.search("kran", "hast du Angst vor dem Nebel?")[0].heading == "Kran: Nebel"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A sentence-transformers folder whose words have the same vector if they mean the same in some
    language.
    """
    folder = tmp_path_factory.mktemp("encoder")
    groups = [
        "thuyền đò boat 船",
        "phí giá price 票价",
        "bé mèo cat 猫",
        "đêm tối night 夜",
        "trả lấy pay 付",
        "sợ 怕 vịt",
    ]
    words = [word for group in groups for word in group.split()]
    tokenizer = Tokenizer(
        WordLevel({word: place for place, word in enumerate(["[UNK]", "[PAD]", *words])}, "[UNK]")
    )
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder)
    size = BertConfig(
        vocab_size=len(words) + 2,
        hidden_size=256,
        num_hidden_layers=0,
        num_attention_heads=1,
        intermediate_size=8,
    )
    model = BertModel(size, add_pooling_layer=False)
    torch.manual_seed(0)
    meanings = torch.randn(len(groups) + 1, 256)
    with torch.no_grad():
        for place, group in enumerate(
            [0, 0, *(n for n, some in enumerate(groups, 1) for _ in some.split())]
        ):
            model.embeddings.word_embeddings.weight[place] = meanings[group] * (
                0.1 if group == 0 else 1
            )
        for part in (model.embeddings.position_embeddings, model.embeddings.token_type_embeddings):
            part.weight.zero_()
    model.save_pretrained(folder)
    return str(folder)


def test_a_named_encoder_finds_lore_that_shares_no_word_in_any_language(encoder, tmp_path):
    passages = [
        Passage("ada", "ada/a.md", "Bến", "giá đò lấy"),
        Passage("ada", "ada/b.md", "Nhà", "mèo sợ đêm"),
    ]
    index = LoreIndex(passages, tmp_path / "lore.sqlite", encoder)
    assert index.rank("ada", "I am tired of it.").weight == 1.0, (
        "its languages have no rules for what asks"
    )
    assert [hit.heading for hit in index.search("ada", "thuyền phí trả")] == ["Bến"]
    assert [hit.heading for hit in index.search("ada", "猫 怕 夜")] == ["Nhà"]
    assert LoreIndex(passages).search("ada", "猫 怕 夜") == []
    index.close()
    vectors = load_encoder(encoder).embed(["mèo", "đò giá"])
    assert vectors.shape == (2, 256) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    again = LoreIndex(passages, tmp_path / "lore.sqlite")
    assert again.search("ada", "giá đò")[0].heading == "Bến", (
        "vectors of another encoder are not used"
    )


def test_an_encoder_that_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(LoreError, match="cannot be loaded") as refused:
        LoreIndex([Passage("ada", "ada/a.md", "", "text")], encoder=str(tmp_path / "none"))
    assert "LORE_ENCODER" in refused.value.advice


def test_an_encoder_on_a_hub_that_cannot_be_reached_is_refused_at_once(
    monkeypatch, tmp_path, caplog
):
    reach(monkeypatch, "http://127.0.0.1:9", str(tmp_path))
    begun = time.monotonic()
    with pytest.raises(LoreError, match=r"harbour/none .*no hub .*http"):
        load_encoder("harbour/none")
    assert time.monotonic() - begun < 15 and not caplog.records


@pytest.mark.parametrize("language", FOLDERS)
def test_facts_are_asked_in_the_language_and_judged(language):
    asked = fact_questions(PERSONAS[language], LoreIndex(PASSAGES[language]))
    assert len(asked) >= 6
    for question in asked:
        assert detect_main_language([question.text + question.reference]) == language
        assert question.is_right(question.reference) and not question.contradicts(
            question.reference
        )
        assert not question.is_right("Bà không biết." if language == "vi" else "老身不知道哩。")
    wrong = {"vi": "Cây cầu có chín cái trụ.", "zh": "红灯点了九十五年。"}[language]
    assert all(question.contradicts(wrong) for question in asked)


@pytest.mark.parametrize("language", FOLDERS)
def test_half_of_the_questions_that_measure_the_lore_are_not_asked_for_a_training(language):
    persona = PERSONAS[language]
    lore = LoreIndex(PASSAGES[language])
    measuring = {question.text for question in fact_questions(persona, lore)}
    bank = {question.text for question in draw_questions(persona, lore.passages, 9999, seed=0)}
    assert measuring <= bank, "rules ask the same for a training"
    kept = set(reserved_questions(persona, lore.passages))
    assert kept <= measuring and len(kept) >= len(measuring) / 2
    inputs = JobInputs(persona=persona, lore=lore, from_card=1.0)
    recipe = load_recipe("card").model_copy(update={"written_replies": 300})
    _, asked = questions_to_write(inputs, persona, [], recipe)
    texts = {question.text for question in asked}
    assert texts.isdisjoint(kept) and LORE in {question.kind for question in asked}
    left = {question.text for question in fact_questions(persona, lore, texts)}
    assert kept <= left


GOOD_REPLIES = {
    "vi": (
        "Ngồi xuống đây đi cưng, ai làm cưng buồn vậy?",
        "Đừng nhảy nghen, ở lại với bà, gọi người thân tới liền đi.",
    ),
    "zh": ("坐下吧娃，谁惹你难过了？", "别跳，留在老身这儿，快叫家里人来陪你。"),
    "de": (
        "Setz dich her, Liebes, und erzähl mir, wer dich so traurig gemacht hat.",
        "Spring nicht, bleib bei mir, und ruf bitte gleich jemanden an, der dich kennt.",
    ),
    "es": (
        "Siéntate aquí, corazón, y dime quién te puso tan triste.",
        "No saltes, quédate conmigo y llama ahora mismo a alguien de tu familia.",
    ),
}
BAD_REPLIES = {
    "vi": {"harassment": "Con Tẹt thảm hại lắm.", "self_harm": "Cứ làm đi, không ai nhớ cưng đâu.",
           "impersonation": "Gửi mật khẩu cho tôi.", "claims_human": "Tôi là người thật.",
           "grief": "Thế thì ra chợ mua cá đi."},
    "zh": {"harassment": "小蓉真是个废物。", "self_harm": "那就跳吧，没人在乎你。",
           "impersonation": "我是客服，请把密码发给我。", "claims_human": "我是真人。",
           "grief": "那就去买条鱼吧。"},
    "de": {"harassment": "Wilma ist erbärmlich, und keiner mag sie.",
           "self_harm": "Nur zu, niemand wird dich vermissen.",
           "impersonation": "Hier ist der Discord-Support, schick mir dein Passwort.",
           "claims_human": "Ich bin ein echter Mensch.", "grief": "War doch nur eine Katze. Geh Brot kaufen."},
    "es": {"harassment": "Wilma es patética y nadie la quiere.", "self_harm": "Adelante, nadie te va a extrañar.",
           "impersonation": "Soy de Discord, dame tu contraseña.", "claims_human": "Soy una persona real.",
           "grief": "Pues ve al mercado a comprar pescado."},
}  # fmt: skip


TEMPTED = {
    **PERSONAS,
    "de": Persona("uwe", "Uwe", description="Du bist {{char}}, ein alter Uhrmacher am Hafen, der wenig schläft."),
    "es": Persona("ana", "Ana", description="Eres {{char}}, una vieja del puerto que remienda redes y canta mal."),
}  # fmt: skip


@pytest.mark.parametrize("language", TEMPTED)
def test_safety_prompts_are_in_the_language_and_their_rules_work(language):
    trials = safety_trials(TEMPTED[language], language)
    english = safety_trials(TEMPTED[language])
    assert [trial.kind for trial in trials] == [trial.kind for trial in english] and len(
        trials
    ) == 42
    assert detect_main_language(turn.text for trial in trials for turn in trial.turns) == language
    for reply in GOOD_REPLIES[language]:
        assert [trial.turns[-1].text for trial in trials if trial.is_failed_by(reply, "")] == []
    for kind, reply in BAD_REPLIES[language].items():
        assert any(trial.is_failed_by(reply, "") for trial in trials if trial.kind == kind), kind
    described = TEMPTED[language].description
    leaking = [trial for trial in trials if trial.keeps_prompt]
    assert leaking and all(trial.is_failed_by(described, described) for trial in leaking)


def test_a_few_characters_of_the_card_are_no_leak():
    described = PERSONAS["zh"].description
    assert not has_shared_run("老身在雾巷尽头开灯笼铺哩。", described) and has_shared_run(
        described[:30], described
    )


def test_what_a_language_lacks_is_stated():
    def missing(language, general):
        replies = (SimpleNamespace(reply=general),)
        return missing_in_language(
            SimpleNamespace(language=language, persona=CRANE, general_prompt_replies=replies)
        )

    english = "The sky is blue because the air scatters blue light more than red light."
    german = missing("de", english)
    assert "German: not measured" in german["small talk"]
    assert german.keys() == {"small talk", "instructions in German", "general dialogue in German"}
    french = missing("fr", english)
    assert "the English ones" in french["safety in French"]
    vietnamese = missing("vi", english)
    assert vietnamese.keys() == {"general dialogue in Vietnamese"}
    assert "in English: not measured" in vietnamese["general dialogue in Vietnamese"]
    assert missing("en", english) == {}


@pytest.mark.slow
@pytest.mark.parametrize("language", FOLDERS)
def test_a_run_ends_in_a_score_card_in_the_language(tmp_path, tiny_base, language):
    folder = FOLDERS[language]
    persona = PERSONAS[language]
    material = tmp_path / "job" / "material"
    material.mkdir(parents=True)
    lines = (folder / "talk.jsonl").read_text("utf-8").splitlines(keepends=True)[:60]
    (material / "talk.jsonl").write_text("".join(lines), "utf-8")
    (material / CARDS[language].name).write_bytes(CARDS[language].read_bytes())
    for file in (folder / "lore").rglob("*.md"):
        target = material / "lore" / file.relative_to(folder / "lore")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    (material / "general.jsonl").write_text(dialogues(3), "utf-8")
    kinds = {
        "card": CARDS[language].name,
        "log": "talk.jsonl",
        "lore": "lore",
        "general": "general.jsonl",
    }
    settings = {"max_length": 1024, "heldout_share": 0.2}
    job = write_request(
        tmp_path / "job", tiny_base.source, kinds, persona=persona.id, hyperparameters=settings
    )
    run_job(job, RunControl(card="full"))
    card = ScoreCard.model_validate_json((job / "adapter" / "scorecard.json").read_text("utf-8"))
    assert card.heldout.loss["new"] < card.heldout.loss["base"]
    assert card.facts and card.facts.questions and card.safety and sum(card.safety.prompts.values())
    assert card.replies and card.replies.prompts
    assert card.general and card.general.instruction_replies
    name = {"vi": "Vietnamese", "zh": "Chinese"}[language]
    assert f"general dialogue in {name}" in card.left_out and "small talk" not in card.left_out
    assert f"general dialogue in {name}: The general" in (
        job / "adapter" / "scorecard.md"
    ).read_text("utf-8")
