"""Detects names of people outside the log with installed spaCy and GLiNER models, the CRF tagger,
or cue words.
"""

import functools
import importlib.metadata
import importlib.util
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self, cast

from huggingface_hub import constants

from trainer.anonymise.capitalisation import CapitalisationStats
from trainer.anonymise.crf_ner.crf_tagger import load_tagger
from trainer.anonymise.crf_ner.gazetteer import load_gazetteer
from trainer.anonymise.crf_ner.tokeniser import (
    EAST_ASIAN_SCRIPTS,
    TAGGED_SCRIPTS,
    is_east_asian,
    scripts_of,
    tagged_runs,
)
from trainer.anonymise.east_asian_names import find_japanese_names, find_korean_names
from trainer.anonymise.language_data import (
    CJK_SURNAMES,
    ENGLISH_WORDS,
    LATIN,
    ORDINALS,
    UPPER,
    read_words,
)
from trainer.anonymise.name_contexts import find_names_in_context
from trainer.anonymise.ner_postprocess import blank_code, refine_findings
from trainer.anonymise.spans import RANK_CUE, RANK_MODEL, EntityKind, EntitySpan

NAME_WORD = rf"[{UPPER}](?:[{LATIN}]|['’-](?=[{LATIN}]))+"
NAME = rf"(?P<name>{NAME_WORD}(?: (?:[A-Z]\. )?(?:(?:de|van|von|der|da|di|del|la|le|bin|al) )?{NAME_WORD}){{0,3}})"
TITLE = r"(?i:mr|mrs|ms|miss|mx|dr|prof|professor|sir|madam|mister)"
NAME_AFTER = rf"(?:{TITLE}(?:\.\s?|\s))?(?!{TITLE}(?![{LATIN}])){NAME}"
"""The title itself is not part of the name."""
SURE_CUES = (
    r"(?i:my name is|my name's|everyone calls me|call me|i am called|ask for|dear|(?:named|called) (?:him|her|it|them)|"
    r"his name is|her name is|their name is|tên (?:tôi|mình|em|anh|chị) là|kính gửi|thân gửi|attn:?)\s+"
)
WEAK_CUES = (
    r"(?i:name is|named|this is|i'm|i am|regards,|cheers,|sincerely,|love,|thanks,|yours,|signed,|speak (?:to|with)|"
    r"talk to|married to|account of|follow up with|said|says|asked|tên là|tôi là|mình là|em là|gặp|gửi|name:|customer:|"
    r"contact:|patient:)\s+"
)
VOCATIVE_START = (
    r"(?:^|(?<=[.!?\n]\s)|(?<=\n))(?P<name>[A-Z][a-z]{2,})(?=, (?:can|could|would|will|please|I|you|are|do|did|what|"
    r"where|how|why|when|who|thank|let|come|have|is)(?![a-z]))"
)
TITLES = (
    r"(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Sir|Madam|Captain|Sergeant|Officer|Judge|Senator|Aunt|Uncle|Anh|Chị|Cô|Chú|"
    r"Bác|Ông|Bà|Thầy|anh|chị|cô|chú|bác|ông|bà|thầy)\.?\s"
)
VIETNAMESE_NAMES = (
    rf"(?<![{LATIN}])(?i:anh|chị|cô|chú|bác|ông|bà|thầy|dì|cậu|mợ|thím|cụ)\s"
    rf"(?P<name>{NAME_WORD}(?: {NAME_WORD}){{1,2}})",
    rf"(?<![{LATIN}])(?P<name>{NAME_WORD} (?:Thị|Văn) {NAME_WORD})",
)
"""Two or more capitalised words after a title, and names with the commonest middle names."""
VOCATIVE = re.compile(VOCATIVE_START)
SURE_PATTERNS = (
    re.compile(rf"(?<![{LATIN}0-9_@#/.]){SURE_CUES}{NAME_AFTER}"),
    VOCATIVE,
    *map(re.compile, VIETNAMESE_NAMES),
)
WEAK_PATTERNS = tuple(
    re.compile(rf"(?<![{LATIN}0-9_@#/.]){before}{NAME_AFTER}") for before in (WEAK_CUES, TITLES)
)
TITLED_NAME = re.compile(rf"(?<![{LATIN}0-9_@#/.])(?i:mr|mrs|ms|mx|dr|prof|miss)(?:\.\s?|\s){NAME}")
NAME_WITH_ORDINAL = re.compile(
    rf"(?<![{LATIN}0-9'’-])(?P<first>{NAME_WORD}) (?:[A-Z]\. )?{NAME_WORD},? (?:{ORDINALS})(?![{LATIN}0-9])"
)
CHINESE_CUE = "我叫|我的名字是|我名叫|他叫|她叫|姓名[:：]|联系人[:：]"
JAPANESE_CUE = "私は|僕は|俺は|名前は|氏名[:：]"
CJK_CUES = (
    re.compile(f"(?:{CHINESE_CUE})(?P<name>[\u4e00-\u9fff]{{2,4}}?)(?=[，。,.!！？?\\s、的]|$)"),
    re.compile(
        f"(?:{JAPANESE_CUE})\\s?(?P<name>[\u3041-\u30fc\u4e00-\u9fff]{{2,6}}?)(?=です|と申し|といい|と言い|だ。)"
    ),
)
KANA = re.compile("[\u3040-\u30ff]")
HANGUL = re.compile("[\uac00-\ud7af]")
CHINESE_SURNAMES = [name for name in CJK_SURNAMES if not HANGUL.search(name)]
CHINESE_SURNAME = "|".join(sorted(CHINESE_SURNAMES, key=lambda name: (-len(name), name)))
NAME_LEFT = (
    "(?:(?<![\u4e00-\u9fff])|"
    "(?<=[叫是给和跟与找让请把被到告系见遇碰识人户者东郎娘任友事居长问陪帮替向对名员喊了]))"
)
NAME_RIGHT = "(?=[，。,.！!？?\\s、；;：:（）()的说在他她你我就也不要会能有从把被来去家和跟与再因反出吃修吗呢吧啊]|$)"
CHINESE_TITLE = (
    "先生|女士|小姐|太太|老师|师傅|阿姨|叔叔|大爷|大妈|大娘|大叔|大婶|医生|大夫|经理|教授|主任|警官|律师|护士|老板|同学|阿婆|"
    "婆婆|奶奶|爷爷"
)
CHINESE_NAMES = (
    re.compile(rf"{NAME_LEFT}(?P<name>(?:{CHINESE_SURNAME})[\u4e00-\u9fff]{{1,2}}?){NAME_RIGHT}"),
    re.compile(f"(?<!关)(?P<name>{CHINESE_SURNAME})(?={CHINESE_TITLE})"),
    re.compile(rf"{NAME_LEFT}(?P<name>[老小](?:{CHINESE_SURNAME})){NAME_RIGHT}"),
)
"""A surname with one or two characters between a cue and a boundary, before a title, or after 老 or
小.
"""
CHINESE_NON_NAMES = read_words("cjk-no-name")
CHINESE_PARTICLES = re.compile(
    f"^于|[的了是在不没很太最更也就都和与说他她你我们这那个]|[路街市区县里楼店村镇城山河湖桥寺站]$|{CHINESE_TITLE}"
)
RANK_WORDS = frozenset(
    "president speaker chairman minister mayor right wrong universe robot".split()
)
CAPITALISED_NON_NAMES = read_words("capitalised")
CUE_RULES_LABEL = "cue words and titles"
UNENCODABLE = re.compile("[\x00-\x08\ud800-\udfff]")
"""Characters that a model's own encoding rejects."""
ANY_LANGUAGE = ""
GLINER_LABELS = {"person": "PERSON", "street address": "STREET_ADDRESS"}
GLINER_THRESHOLD = 0.5
SPACY_LABELS = {"PERSON": "PERSON", "PER": "PERSON"}
SPACY_SIZE_SUFFIXES = ("_trf", "_lg", "_md", "_sm")
"""Preference among several models of a language."""
NerFinding = tuple[str, int, int, float]
"""(kind, start, end, score)."""
log = logging.getLogger(__name__)


def find_names_by_cues(text: str, *, sure: bool) -> Iterator[EntitySpan]:
    """Find `PERSON` after a cue word or a title, in four languages; `sure` uses unambiguous cues
    only.
    """
    patterns = SURE_PATTERNS
    if not sure:
        patterns += WEAK_PATTERNS
    for pattern in patterns:
        for match in pattern.finditer(text):
            if _may_be_called(match["name"], is_vocative=pattern is VOCATIVE):
                yield EntitySpan.of_match("PERSON", match, RANK_CUE, group="name")
    for match in TITLED_NAME.finditer(text):
        end = _name_end(match["name"])
        if end:
            yield EntitySpan("PERSON", match.start("name"), match.start("name") + end, RANK_CUE)
    for match in NAME_WITH_ORDINAL.finditer(text):
        if "g" in load_gazetteer().of(match["first"]):
            yield EntitySpan.of_match("PERSON", match, RANK_CUE)
    yield from find_names_in_context(text)
    yield from _find_cjk_names(text)


def _may_be_called(name: str, *, is_vocative: bool) -> bool:
    """Return False after a cue for a common word. A sentence that begins with a word and a comma
    calls nobody, unless the word is a given name.
    """
    first = name.split()[0]
    if first in CAPITALISED_NON_NAMES or first.lower() in RANK_WORDS:
        return False
    if is_vocative:
        gazetteer = load_gazetteer()
        return "g" in gazetteer.of(first) or not gazetteer.is_word(first)
    return " " in name or first.lower() not in ENGLISH_WORDS


def _find_cjk_names(text: str) -> Iterator[EntitySpan]:
    for pattern in CJK_CUES:
        for match in pattern.finditer(text):
            yield EntitySpan.of_match("PERSON", match, RANK_CUE, group="name")
    language = detect_cjk_language(text)
    if language == "zh":
        yield from _find_chinese_names(text)
    elif language == "ja":
        yield from find_japanese_names(text)
    elif language == "ko":
        yield from find_korean_names(text)


def _find_chinese_names(text: str) -> Iterator[EntitySpan]:
    """Find names by Chinese surnames and their context; words that begin with a surname's character
    are no names.
    """
    for pattern in CHINESE_NAMES:
        for match in pattern.finditer(text):
            name = match["name"]
            if name[:2] not in CHINESE_NON_NAMES and not CHINESE_PARTICLES.search(name):
                yield EntitySpan.of_match("PERSON", match, RANK_CUE, group="name")


def _name_end(written: str) -> int:
    """Return the end of the name after a title: the first word that is no name. 0 if there is no
    name.
    """
    end = 0
    for match in re.finditer(rf"[{LATIN}'’-]+", written):
        word = match[0]
        signs = load_gazetteer().of(word)
        is_word = "c" in signs and (not {"g", "f"} & {*signs} or (end > 0 and word.isupper()))
        is_other = is_word or word in CAPITALISED_NON_NAMES or word.lower() in RANK_WORDS
        # Words in lower case inside a name are its particles.
        if is_other and word[0].isupper():
            break
        end = match.end()
    return end


class NerModel(Protocol):
    """A model that finds people and addresses; `name` is for reports."""

    @property
    def name(self) -> str: ...

    def find(self, text: str) -> list[NerFinding]: ...


@dataclass(frozen=True)
class SpacyNer:
    """A spaCy pipeline for one language, or for many ("xx")."""

    name: str
    pipeline: Any

    def find(self, text: str) -> list[NerFinding]:
        """Find people."""
        findings: list[NerFinding] = []
        for entity in self.pipeline(text).ents:
            kind = SPACY_LABELS.get(entity.label_)
            if kind:
                findings.append((kind, entity.start_char, entity.end_char, 1.0))
        return findings


@dataclass(frozen=True)
class GlinerNer:
    """A GLiNER model, for any language."""

    name: str
    model: Any

    def find(self, text: str) -> list[NerFinding]:
        """Find people and addresses."""
        labels = list(GLINER_LABELS)
        findings: list[NerFinding] = []
        for entity in self.model.predict_entities(text, labels, threshold=GLINER_THRESHOLD):
            kind = GLINER_LABELS[entity["label"]]
            findings.append((kind, entity["start"], entity["end"], float(entity["score"])))
        return findings


def installed_models() -> dict[str, NerModel]:
    """Return the installed models by language ("" for any); empty without any."""
    return {**_spacy_models(), **_gliner_models()}


def _spacy_models() -> dict[str, NerModel]:
    models = sorted(point.name for point in importlib.metadata.entry_points(group="spacy_models"))
    if not models or importlib.util.find_spec("spacy") is None:
        return {}
    import spacy  # type: ignore[import-not-found, unused-ignore]  # optional

    chosen: dict[str, str] = {}
    # From the least preferred size on, so that a better one replaces it.
    for size in reversed(SPACY_SIZE_SUFFIXES):
        chosen |= {name[:2]: name for name in models if name.endswith(size)}
    by_language: dict[str, NerModel] = {}
    for code, name in chosen.items():
        language = ANY_LANGUAGE if code == "xx" else code
        try:
            by_language[language] = SpacyNer(f"spaCy {name}", spacy.load(name))
        except (OSError, ValueError, ImportError) as error:
            log.warning("spaCy's model %s cannot be used: %s", name, error)
    return by_language


def _gliner_models() -> dict[str, NerModel]:
    if importlib.util.find_spec("gliner") is None:
        return {}
    for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--*[gG][lL][iI][nN][eE][rR]*")):
        name = folder.name.removeprefix("models--").replace("--", "/")
        try:
            from gliner import GLiNER  # type: ignore[import-not-found, unused-ignore]  # optional

            model = GLiNER.from_pretrained(name, local_files_only=True)
            return {ANY_LANGUAGE: GlinerNer(f"GLiNER {name}", model)}
        except (OSError, ValueError, ImportError) as error:
            log.warning("GLiNER's model %s cannot be used: %s", name, error)
    return {}


SearchMethod = Literal["model", "rules", "none"]
"""How names of people outside the log are looked for: by a model or the tagger, by cue words and
lists of names alone, or not at all.
"""


SEARCH_PHRASES: Mapping[SearchMethod, str] = {
    "model": "looked for in {scripts}",
    "rules": "looked for by lists and cue words alone in {scripts}",
    "none": "not looked for in {scripts}, where only known names and patterns are replaced",
}


@dataclass
class NameDetector:
    """Name detectors of this machine. `models` are by language, "" for any; `tagger` reads Latin
    and Greek script.
    """

    models: Mapping[str, NerModel] = field(default_factory=dict)
    tagger: NerModel | None = None

    @classmethod
    def available(cls) -> Self:
        """Load the detectors installed on this machine; nothing is downloaded."""
        models, tagger = _load_models()
        return cls(models=models, tagger=tagger)

    @property
    def description(self) -> str:
        """Description of the detectors, for reports."""
        names = [*dict.fromkeys(model.name for model in self.models.values())]
        names += [f"tagger ({self.tagger.name})"] if self.tagger else []
        return ", ".join(names) or CUE_RULES_LABEL

    def detect(self, text: str, capitalisation: CapitalisationStats) -> list[EntitySpan]:
        """Find `PERSON` and `STREET_ADDRESS`. `capitalisation` holds the statistics of all texts."""
        text = blank_code(UNENCODABLE.sub("\ufffd", text))
        language = detect_cjk_language(text)
        whole, tagged = self._models_for(language)
        if not whole and not tagged:
            return list(find_names_by_cues(text, sure=False))
        spans = []
        for start, part, models in (
            (0, text, whole),
            *((*run, tagged) for run in tagged_runs(text)),
        ):
            for model in models:
                for kind, first, last, _ in model.find(part):
                    span = EntitySpan(
                        cast(EntityKind, kind), start + first, start + last, RANK_MODEL
                    )
                    spans.append(span)
        return [*refine_findings(text, spans, capitalisation), *find_names_by_cues(text, sure=True)]

    def _models_for(self, language: str) -> tuple[list[NerModel], list[NerModel]]:
        """Return the models that read a whole text, and those that read its parts in the tagger's
        scripts. `language` is that of an East Asian text, or empty.
        """
        names = (ANY_LANGUAGE, language) if language else (ANY_LANGUAGE,)
        whole = [model for name, model in self.models.items() if name in names]
        tagged = []
        if not language:
            tagged = [model for name, model in self.models.items() if name == "en"]
            tagged += [self.tagger] if self.tagger else []
        return whole, tagged

    def search_methods(self, text: str) -> dict[str, SearchMethod]:
        """Return how names are looked for in each script of a text."""
        language = detect_cjk_language(text)
        whole, tagged = self._models_for(language)
        methods: dict[str, SearchMethod] = {}
        for script in scripts_of(text):
            is_read = whole or (script in TAGGED_SCRIPTS and tagged)
            is_ruled = script in (*TAGGED_SCRIPTS, *EAST_ASIAN_SCRIPTS)
            methods[script] = "model" if is_read else "rules" if is_ruled else "none"
        return methods


def describe_name_search(searched: Mapping[str, Mapping[str, int]]) -> str:
    """Say in which scripts names were looked for, with the numbers of texts; empty without any text.

    `searched` counts texts by script and `SearchMethod`.
    """
    sentences = []
    for method, phrase in SEARCH_PHRASES.items():
        scripts = []
        for script, counts in sorted(searched.items()):
            count = counts.get(method, 0)
            if count:
                scripts.append(f"{script} ({count:,} text{'s' if count > 1 else ''})")
        if scripts:
            sentences.append(phrase.format(scripts=", ".join(scripts)))
    return f"names of people outside the log were {'; '.join(sentences)}" if sentences else ""


@functools.cache
def _load_models() -> tuple[Mapping[str, NerModel], NerModel | None]:
    return installed_models(), load_tagger()


def detect_cjk_language(text: str) -> str:
    """Return zh, ja or ko for a text mostly in Chinese, Japanese or Korean; else empty."""
    if not is_east_asian(text):
        return ""
    if KANA.search(text):
        return "ja"
    return "ko" if HANGUL.search(text) else "zh"
