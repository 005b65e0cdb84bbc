"""Mends by rules what a model does against a habit that all examples of a card have: short forms,
exclamations, and capital letters.
"""

import re

from trainer.dataset.synthetic.speaking_style import SpeakingStyle

WHOLE_FORMS = {
    "can't": "cannot",
    "won't": "will not",
    "shan't": "shall not",
    "ain't": "is not",
    "let's": "let us",
    "y'all": "you all",
}
HAD_BEFORE = (
    r" (?:(?:never|always|already|also|just|only|not|ever) )?"
    r"(?:better|(?:bee|see|take|give|forgive|know|forgotte|forbidde|hidde|writte|drive|spoke|stole|"
    r"broke|eate|falle|grow|throw|draw|show|wor|chose)n|gone|done|had|lost|left|found|"
    r"heard|told|kept|held|thought|brought|bought|caught|taught|made|meant|felt|slept|sat|stood|understood|met|"
    r"got|led|won|paid|sent|built|spent|said|begun|agreed|freed|(?!shed\b|embed\b)\w+(?<!e)ed)\b"
)
"""What follows "had" in "I'd better" and "I'd gone", and hardly "would"."""
AINT = (
    (r"\bain['’]t I\b", "am I not"),
    (r"\b(I) ain['’]t\b", r"\1 am not"),
    (r"\b(you|we|they) ain['’]t\b", r"\1 are not"),
)
ENDINGS = (
    (r"n['’]t\b", " not"),
    (r"\b(I)['’]m\b", r"\1 am"),
    (r"['’]re\b", " are"),
    (r"['’]ve\b", " have"),
    (r"['’]ll\b", " will"),
    (rf"\b(I|you|he|she|it|we|they|that|there)['’]d(?={HAD_BEFORE})", r"\1 had"),
    (r"\b(I|you|he|she|it|we|they|that|there)['’]d\b", r"\1 would"),
)
SUBJECT = r"\b(it|he|she|that|there|here|what|who|where|how)['’]s\b"
SHOUTED_QUESTION = re.compile(r"(?=[!！?？]*[?？])(?=[!！?？]*[!！])[!！?？]+")
EXCLAMATIONS = re.compile(r"[!！]+")
IS = re.compile(SUBJECT, re.IGNORECASE)
HAS = re.compile(
    rf"{SUBJECT}(?= (?:always |never |also )?(?:been|got|had|gone|come|done|lost)\b)", re.I
)


def restyle(text: str, style: SpeakingStyle) -> str:
    """Return a reply without the short forms and exclamation marks that no example has."""
    if style.contracted == 0:
        text = expand_contractions(text)
    if style.exclaimed == 0:
        text = SHOUTED_QUESTION.sub("?", text)
        text = text.replace("¡", "")
        text = EXCLAMATIONS.sub(lambda signs: "。" if "！" in signs[0] else ".", text)
    return text


def lower_if_small(text: str, style: SpeakingStyle) -> str:
    """Return a reply in small letters, where no example has a capital one.

    A judge of drafts sees them before: it knows names by their capitals.
    """
    return text if style.capitals else text.lower()


def expand_contractions(text: str) -> str:
    """Return an English text with its short forms written out."""

    def whole(match: re.Match[str]) -> str:
        full = WHOLE_FORMS[match[0].casefold().replace("’", "'")]
        return full.capitalize() if match[0][0].isupper() else full

    for pattern, full in AINT:
        text = re.sub(pattern, full, text, flags=re.IGNORECASE)
    forms = "|".join(form.replace("'", "['’]") for form in WHOLE_FORMS)
    text = re.sub(rf"\b(?:{forms})\b", whole, text, flags=re.IGNORECASE)
    for pattern, full in ENDINGS:
        text = re.sub(pattern, full, text, flags=re.IGNORECASE)
    return IS.sub(r"\1 is", HAS.sub(r"\1 has", text))
