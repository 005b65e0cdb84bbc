"""Finds Japanese and Korean names: by lists of names, and what stands before and after."""

import re
from collections.abc import Iterator

from trainer.anonymise.language_data import read_words
from trainer.anonymise.spans import RANK_CUE, EntitySpan


def _any_of(words: frozenset[str]) -> str:
    return "|".join(sorted(words, key=lambda word: (-len(word), word)))


KANJI = "\u3005\u4e00-\u9fff"
SURNAMES = read_words("japanese-surname")
SURNAME = _any_of(SURNAMES)
LONG_SURNAME = _any_of(frozenset(name for name in SURNAMES if len(name) > 1))
HONORIFIC = (
    "さん|くん|君|ちゃん|様|さま|氏|先輩|先生|選手|部長|課長|係長|社長|店長|教授|医師|弁護士|監督|"
    "キャプテン|ママ|パパ|家の|夫妻|"
    "一家|兄弟|姉妹"
)
RIGHT = (
    f"(?=(?:{HONORIFIC})|です|でした|でございます|と(?:申し|言い|いい|いう|言う)|"
    f"[はがをにのともへ、。,.！!？?\\s）)」』:：/・]|から|より|まで|だ(?:。|よ|ね|が)|$)"
)
GIVEN_ENDS = (
    "子美香奈恵菜咲斗太郎介也人樹翔平彦男夫雄一二代江花愛優結葵蓮陽海空真紀里沙織穂佳音希帆実乃衣"
    "莉理華弥哉輔助大誠健悠涼隼拓"
    "久志治史司明朗吾馬之幸隆浩修剛純学豊勇進茂進和宏司伸聡哲徹亮翼駿凛杏桜澪楓"
)
NO_GIVEN = (
    "です|でし|でご|さん|さま|くん|ちゃん|から|まで|より|という|との|には|では|とも|だけ|など|"
    "って|たち|らし|みた|にも|への|とは"
)
"""What follows a surname in hiragana and begins no given name."""
FULL_NAME = re.compile(
    rf"(?<![{KANJI}])(?P<name>(?:{LONG_SURNAME})[ "
    rf"　]?(?:(?![県市区町村駅山川湖島])[{KANJI}]{{1,3}}?|(?!{NO_GIVEN})[ぁ-ん]{{2,4}}?|"
    rf"[ァ-ヴー]{{2,6}})){RIGHT}"
)
SURNAME_CALLED = re.compile(rf"(?<![{KANJI}])(?P<name>{SURNAME})(?={HONORIFIC})")
SURNAME_INTRODUCED = re.compile(
    rf"(?:(?:私|僕|俺|担当|名前|氏名|宛名|差出人|申込者|代表者?|受取人|幹事|会長|友人|同僚|"
    rf"隣)(?:は|の|が|[:：])\s?|(?<![{KANJI}]))"
    rf"(?P<name>{LONG_SURNAME})(?=です|でした|でございます|と申します|といいます|と言います|より)"
)
GIVEN_CALLED = re.compile(
    rf"(?<![{KANJI}ぁ-んァ-ヴーお])(?P<name>[{KANJI}]{{1,2}}[{GIVEN_ENDS}]|"
    rf"[ァ-ヴー]{{2,6}})(?=さん|くん|君(?!が代)|ちゃん|先輩)"
)
HIRAGANA_CALLED = re.compile(r"(?<![ぁ-んァ-ヴー])(?P<name>[ぁ-ん]{2,4}?)(?=ちゃん|くん)")
INTRODUCED = re.compile(
    rf"(?:名前は|氏名[:：]|名前[:：]|お名前[:：]|宛名[:：]|担当[:：]|"
    rf"本名は)\s?(?P<name>[{KANJI}ぁ-んァ-ヴー]{{2,5}}(?:[ 　][{KANJI}ぁ-んァ-ヴー]{{1,5}})?)"
    r"(?=です|と|で|だ|[、。,.\n]|\s|$)"
)
NO_NAMES = frozenset(
    "お母 母 お父 父 お兄 兄 お姉 姉 おじ おば おじい おばあ じい ばあ 皆 みな みん 赤 店員 お客 "
    "客 運転手 医者 患者 業者 奥 息子 娘 旦那 "
    "嫁 婿 孫 隣 大家 看護師 大工 職人 新人 芸人 主人 夫人 個人 本人 友人 他人 大人 老人 美人 "
    "犯人 住人 商人 詩人 外人 名人 達人 役者 記者 "
    "学者 読者 作者 若者 編集者 担当者 お子 子 坊 お嬢 神 仏 サンタ ワン ニャン ネコ "
    "イヌ クマ パンダ ウサギ ママ パパ マスター スタッフ ドライバー".split()
)
PLACE_AFTER = re.compile("[県市区町村駅山川湖島線橋寺城府都道]")
JAPANESE_FORMS = (
    FULL_NAME,
    SURNAME_CALLED,
    SURNAME_INTRODUCED,
    GIVEN_CALLED,
    HIRAGANA_CALLED,
    INTRODUCED,
)

HANGUL = "\uac00-\ud7a3"
KOREAN_SURNAME = _any_of(read_words("korean-surname"))
GIVEN = _any_of(read_words("korean-given"))
KOREAN_TITLE = (
    "씨|님|군|양|선생|과장|대리|부장|팀장|사장|차장|실장|원장|교수|의원|기자|변호사|간호사|의사|"
    "박사|코치|감독|선수|형|누나|오빠|언니|"
    "이모|삼촌|할머니|할아버지|엄마|아빠|어머니|아버지|드림|올림|배상"
)
KOREAN_TITLES = frozenset(KOREAN_TITLE.split("|"))
KOREAN_END = (
    rf"(?=\s?(?:{KOREAN_TITLE})|(?:이|이가|이는|이를|이와|이한테|이랑|이네|이도|이의|이야|가|은|"
    rf"는|을|를|와|과|의|도|아|야|랑|한테|에게|께|님|"
    rf"입니다|이에요|예요|이라고|라고|이고|이며|만|까지|부터|네)?(?![{HANGUL}]))"
)
KOREAN_FORMS = (
    re.compile(rf"(?<![{HANGUL}])(?P<name>(?:(?:{KOREAN_SURNAME})\s?)?(?:{GIVEN})){KOREAN_END}"),
    re.compile(
        rf"(?<![{HANGUL}])(?P<name>(?:{KOREAN_SURNAME})[{HANGUL}]{{2}})(?=\s?(?:씨|님(?!들)|"
        rf"군(?![{HANGUL}])|양(?![{HANGUL}])|드림|올림|(?:과장|대리|부장|팀장|사장|선생|교수|의원|"
        rf"기자|변호사|원장)))"
    ),
    re.compile(
        rf"(?:이름은|이름\s?[:：]|성명\s?[:：]|저는|담당자?\s?[:：]?|고객(?:명)?\s?[:：]|받는 "
        rf"?(?:사람|분)\s?[:：]|보내는 ?(?:사람|분)\s?[:：]|예약자\s?[:：]?|"
        rf"환자\s?[:：]|친구|동생|수신\s?[:：]|"
        rf"발신\s?[:：])\s?(?P<name>(?:{KOREAN_SURNAME})[{HANGUL}]{{2}})"
        rf"(?=이?라고|입니다|이에요|예요|이고|[\s,.!\n]|$)"
    ),
    re.compile(
        rf"(?<![{HANGUL}])(?P<name>(?:{KOREAN_SURNAME}))(?=\s?(?:과장|대리|부장|팀장|사장|차장|"
        rf"실장|선생님|교수님|원장))"
    ),
)
KOREAN_NO_NAMES = frozenset(
    "고객 이웃 주인 손님 선생 교수 사장 부장 이용자 주문자 전문가 관리자 임차인 임대인 담당자".split()
)


def find_japanese_names(text: str) -> Iterator[EntitySpan]:
    """Find `PERSON` by surname and given name before a boundary, and before an honorific."""
    for form in JAPANESE_FORMS:
        for match in form.finditer(text):
            name = match["name"]
            if name not in NO_NAMES and not PLACE_AFTER.match(text, match.end("name")):
                yield EntitySpan.of_match("PERSON", match, RANK_CUE, group="name")


def find_korean_names(text: str) -> Iterator[EntitySpan]:
    """Find `PERSON` by given names, and by surname and two syllables beside a title or a label."""
    for form in KOREAN_FORMS:
        for match in form.finditer(text):
            if match["name"] not in KOREAN_NO_NAMES and match["name"][1:] not in KOREAN_TITLES:
                yield EntitySpan.of_match("PERSON", match, RANK_CUE, group="name")
