"""Index and query terms: folding, stop words, and character pairs for scripts without spaces."""

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

from personas.schemas.scripts import UNSEGMENTED_SCRIPTS

LETTER_FOLDS = str.maketrans(
    {"đ": "d", "ð": "d", "ł": "l", "ø": "o", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"}
)

WORD_PATTERN = re.compile(rf"[{UNSEGMENTED_SCRIPTS}]+|[^\W_{UNSEGMENTED_SCRIPTS}]+")
UNSEGMENTED_PATTERN = re.compile(rf"[{UNSEGMENTED_SCRIPTS}]+")
HIRAGANA_PATTERN = re.compile("[\u3040-\u309fー]+")

MIN_GRAM_WORD_CHARS = 5  # shorter words have too few three-letter n-grams to tell them apart

STOP_WORDS = frozenset(
    """a about after all also always am an and another any anyone are around as ask at back bad be because been before
    being best better big bit but by can could day days did do does doing done down each else enough even
    ever every everyone everything feel feels few find first for from gave get give go goes going gone good
    got great had happen happened happens has have he hello help her here hey hi him his how i if in into is
    it its just keep knew know known last late let life like little long look looking lot made make man many
    maybe me mean might more morning most much must my name need never new next night no not nothing now of
    off old on once one only or other our out over own part people place please put rather really right said
    same saw say see seem she should so some someone something still stop such sure take talk tell than
    thank thanks that the their them then there these they thing things think this those though time to
    today told tomorrow tonight too took try two until up us used very want wants was way we week well went
    were what when where whether which while who whole whose why will with without work would wrong year years yes
    yesterday yet you your""".split()
)

AUXILIARIES = frozenset(
    """is isn are aren was wasn were weren do don does doesn did didn can could couldn will would wouldn won has hasn
    have haven had should shouldn""".split()
)
"""Auxiliary verbs, without what follows an apostrophe."""
ASKING_WORDS = AUXILIARIES | frozenset("any tell describe explain introduce remind talk".split())
"""Words that ask for something to be told if a clause begins with them."""
TOLD_ABOUT_WORDS = frozenset("tell know hear learn more".split())  # before "about"
INTERROGATIVES = frozenset(
    "who whos what whats when whens where wheres why how hows which whose whom".split()
)
OPENING_WORDS = frozenset(
    "and but so or well ok okay hey hi hello please then now also oh um".split()
)
MIN_STOP_WORD_SHARE = 0.2  # of the words of an English text
CLAUSE_BREAK_PATTERN = re.compile(r"[.!,;:…\n]+")

# Folded like `fold_text`, and without those that are meaningful English words.
VIETNAMESE_STOP_WORDS = frozenset(
    """ai anh bao bi boi cac cai chi cho co con cua cung da dang dau day de deu di do duoc em gi hay hoac khi khong
    kia la lai lam len ma mot nam nao nay neu nguoi nhe nhieu nhu nhung noi o ong qua ra rang rat roi sao se tai theo
    thi toi trong tu va vao ve vi voi vua xin chao""".split()
)

CHINESE_STOP_WORDS = frozenset(
    """什么 甚么 怎么 为什 哪里 哪儿 哪个 多少 几点 时候 我们 你们 他们
    她们 它们 这个 那个 这里 那里 这样 那样 这么 那么 是不 不是 没有 有没
    可以 一个 一下 一点 的时 因为 所以 但是 如果 已经 还是 就是 知道 觉得 现在
    今天 明天 昨天 谢谢 你好 早上 晚上 请问 告诉 诉我 的人 么样
    你的 我的 他的 她的 是什 有什 了吗 的吗 么的 個人 什麼 怎麼 為什 時候 這個 那個 沒有 麼樣 谁是 是谁""".split()
)

EVERYDAY_TERMS = frozenset(
    """an ban biet bua buon cam chac chan chieu choi chua chuc chung chuyen cuoi cuoc dep dien dung gio giup hat hoc
    hoi hom hon hop ke khoe lanh lo mai mang may me met mong moi mua muon nghe nghi ngon ngu ngay nha nhac nho nong
    phai phim qua que sang sinh so sao su tam tan thay the thich thu tien tiec tot toan tra tre troi truoc tuan tuoi
    uong vui xa xem xong yeu ngoai trua 天气 今晚 昨晚 今早 明早 早安 晚安 午安 你们 大家 开心 难过 高兴 无聊 好累
    累了 好吃 吃饭 饭了 睡觉 觉了 起床 上班 下班 上学 放学 考试 作业 周末 生日 快乐 喜欢 讨厌 电影 音乐 手机 游戏
    笑话 故事 讲个 个笑 推荐 打算 怎样 样子 真的 好的 谢谢 再见 拜拜 哈哈 机器 器人 聊天 聊聊 名字 叫什 几岁 多大
    帮我 帮忙 没事 事情 一起 天天 休息 感觉 有点 有人 人吗 出门 回家""".split()
)
"""Terms that are common in small talk in Vietnamese (folded) and Chinese, and so say little about
lore.
"""

FUNCTION_CHARACTERS = frozenset(
    "的了是在有我你您他她它们們这這那哪个個一不也就都和与及或但很吗嗎呢吧啊呀么麼什甚怎谁誰几幾多少为為何因所以被把"
    "从從到给給对對会會能要想可去来來上下里裡中后後前时時候着过過还還又再没沒何時人年月日今天好大小说說点點样樣做用"
)

JAPANESE_STOP_WORDS = frozenset(
    "何時 何処 何人 今日 明日 昨日 今何 誰か 何か 私は 私の あ行".split()
)


def fold_text(text: str) -> str:
    """Fold case, full-width forms and diacritics. Japanese voicing marks stay: が is not か."""
    composed = unicodedata.normalize("NFKC", text).casefold()
    folded = []
    for character in composed:
        if UNSEGMENTED_PATTERN.match(character):
            folded.append(character)
        else:
            for part in unicodedata.normalize("NFD", character):
                if not unicodedata.combining(part):
                    folded.append(part)
    return "".join(folded).translate(LETTER_FOLDS)


def extract_terms(text: str) -> list[str]:
    terms = []
    for word in WORD_PATTERN.findall(fold_text(text)):
        terms += _character_pairs(word)
    return terms


def query_terms(message: str) -> list[str]:
    """Return the unique terms of a message without stop words."""
    return [word for word in dict.fromkeys(extract_terms(message)) if _is_query_term(word)]


def spellings(text: str) -> dict[str, set[str]]:
    """Return the words of a text with diacritics by their folded form, empty for one without: "cả"
    is not "cá".
    """
    words = WORD_PATTERN.findall(unicodedata.normalize("NFC", text).casefold())
    forms: dict[str, set[str]] = {}
    if all(map(str.isascii, words)):
        return forms
    for word in words:
        if not UNSEGMENTED_PATTERN.match(word):
            forms.setdefault(fold_text(word), set()).add(word)
    return forms


def character_grams(message: str) -> frozenset[str]:
    """Return character n-grams of a text's terms, which words in other forms or orders share.

    Of long words the three-letter ones, of scripts without spaces the characters and pairs; without
    stop words, everyday words, and characters that are mostly grammar.
    """
    grams: set[str] = set()
    for word in WORD_PATTERN.findall(fold_text(message)):
        pieces = set(filter(_is_query_term, _character_pairs(word))) - EVERYDAY_TERMS
        if UNSEGMENTED_PATTERN.match(word):
            for sign in word:
                if sign not in FUNCTION_CHARACTERS and not HIRAGANA_PATTERN.match(sign):
                    grams.add(sign)
        elif pieces and len(word) >= MIN_GRAM_WORD_CHARS:
            pieces = {f" {word} "[at : at + 3] for at in range(len(word))}
        grams |= pieces
    return frozenset(grams)


def is_mostly_ascii(text: str) -> bool:
    """Return True if at most a tenth of the letters is non-ASCII: `personas.lore.minilm` was
    trained on English.
    """
    letters = [character for character in text if character.isalpha()]
    return bool(letters) and sum(character.isascii() for character in letters) >= 0.9 * len(letters)


def has_english_stop_words(words: Sequence[str]) -> bool:
    """Return True if as many of a text's words are stop words as in English; words are in lower
    case.
    """
    return sum(word in STOP_WORDS for word in words) >= MIN_STOP_WORD_SHARE * len(words)


def has_words(message: str) -> bool:
    """Return True if a message has anything to search for: not only signs and emoji."""
    return WORD_PATTERN.search(message) is not None


def is_statement(message: str) -> bool:
    """Return True for an English message that asks for nothing about anybody: "got promoted",
    "write me a poem".
    """
    if "?" in message or "\uff1f" in message:
        return False
    words = WORD_PATTERN.findall(message.casefold())
    english = sum(word in STOP_WORDS for word in words)
    vietnamese = sum(word in VIETNAMESE_STOP_WORDS for word in words)
    if english <= vietnamese or not has_english_stop_words(words):
        return False
    clauses = CLAUSE_BREAK_PATTERN.split(message.casefold())
    return not any(_asks(WORD_PATTERN.findall(clause)) for clause in clauses)


def _asks(words: Sequence[str]) -> bool:
    """Return True if a clause asks, as it begins or further on: "ballast tell me", "for lunch what
    do", "your ship".
    """
    rest = [word for word in words if word not in OPENING_WORDS]
    if ASKING_WORDS.intersection(rest[:1]) or INTERROGATIVES.intersection(rest[:3]):
        return True
    if "your" in words:
        return True
    if "about" in words and TOLD_ABOUT_WORDS.intersection(words[: words.index("about")]):
        return True
    return any(_is_asking_pair(word, following) for word, following in pairwise(words))


def _is_asking_pair(word: str, following: str) -> bool:
    if word in INTERROGATIVES and following in AUXILIARIES:
        return True
    if word in AUXILIARIES and following == "you":
        return True
    return word == "tell" and following in ("me", "us")


def _character_pairs(word: str) -> list[str]:
    if not UNSEGMENTED_PATTERN.match(word) or len(word) == 1:
        return [word]
    return [word[position : position + 2] for position in range(len(word) - 1)]


def _is_query_term(word: str) -> bool:
    if len(word) < 2:
        return False
    if not UNSEGMENTED_PATTERN.match(word):
        return word not in STOP_WORDS and word not in VIETNAMESE_STOP_WORDS
    if HIRAGANA_PATTERN.fullmatch(word):  # it writes grammar, so its pairs carry no meaning
        return False
    return word not in CHINESE_STOP_WORDS and word not in JAPANESE_STOP_WORDS
