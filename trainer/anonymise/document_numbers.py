"""Recognises numbers of people's documents: by a word before them, or by a form of their own."""

import re
from collections.abc import Iterator

from trainer.anonymise.language_data import LATIN, text_before
from trainer.anonymise.phone_numbers import MONEY_AFTER
from trainer.anonymise.spans import RANK_PATTERN, EntitySpan

NUMBER_WORD = (
    r"(?:\s?(?:number|numbers|no|nr|num|n[º°o]|id|code|#|numero|número|numéro|nummer|numer|"
    r"αριθμός|αρ|номер)\.?(?![a-z]))"
)
DOCUMENT = (
    r"driv(?:er|ing)(?:['’]?s|s['’])? licen[cs]e|licen[cs]e plate|(?:number|licen[cs]e|car|"
    r"vehicle|registration) ?plate|plates?|"
    r"(?:car|vehicle) (?:reg(?:istration)?|is)|number plate|reg(?:istration)? (?:no|number)|vin|"
    r"(?:tax(?:payer)?|national|personal|citizen|identity|resident|residence|student|employee|"
    r"staff|patient|member(?:ship)?|"
    r"customer|client|insurance|policy ?holder|social insurance|national insurance|library|"
    r"loyalty|health|medicare|voter)"
    r"[ -]?(?:id(?:entification|entity)?|identity|card|reference|insurance|security|permit|ref|"
    r"file)?|"
    r"id(?:entity)? ?(?:card|document)|identity|ni|nino|nhs|tin|itin|sin|tfn|pps|ppsn|utr|aadhaar|"
    r"pan card|mrn|licen[cs]e|"
    r"social(?: security)?|passport|visa|"
    r"(?:personal)?ausweis|führerschein|kennzeichen|steuer-?(?:id|nummer|identifikationsnummer)|"
    r"kunden|mitglieds|"
    r"sozialversicherungs|krankenversicherten|versicherten|matrikel|reisepass|"
    r"permis(?: de conduire)?|carte d['’]identité|sécurité sociale|plaque(?: "
    r"d['’]immatriculation)?|immatriculation|"
    r"passeport|(?:numéro |n[°º] )?(?:de )?(?:client|fiscal|allocataire|adhérent)|"
    r"dni|nie|nif|nuss|matrícula|carn[eé]t? de (?:conducir|identidad)|pasaporte|permiso de "
    r"conducir|(?:de )?cliente|socio|"
    r"codice (?:fiscale|cliente)|patente|carta d['’]identità|passaporto|targa|tessera(?: "
    r"sanitaria)?|"
    r"bsn|burgerservice|rijbewijs|kenteken|klant|paspoort|identiteitskaart|lid|"
    r"f[øo]dsels|person(?:al)?|førerkort|kunde|pass|skilt(?:et)?|registrerings|"
    r"pesel|nip|dow[óo]d(?:u)?(?: osobist\w+)?|prawo jazdy|paszport\w*|tablic\w* rejestracyjn\w*|"
    r"rejestracj\w+|klienta|"
    r"cpf|rg|nif|cartão de cidadão|carta de condução|passaporte|matrícula|placa|título de eleitor|"
    r"αφμ|αμκα|α\.φ\.μ\.|α\.μ\.κ\.α\.|ταυτότητα\w*|διαβατήριο\w*|πινακίδα\w*|δίπλωμα\w*"
)
IS = r"(?:\s?(?:is|was|ist|lautet|est|es|è|er|é|to|are|jest|είναι|[:=：#(]|[-–](?= )))"
LABEL = re.compile(
    rf"(?<![{LATIN}\u0370-\u03ff])(?:{DOCUMENT})(?P<word>{NUMBER_WORD}{{0,2}})(?P<sign>{IS}{{0,2"
    rf"}})\s{{0,2}}[\"'“]?$"
)
EAST_ASIAN_LABEL = re.compile(
    r"(?:身份证号?码?|身分證(?:字號)?|护照号?码?|驾照号?码?|驾驶证号?|车牌号?|社保号|会员号|"
    r"客户(?:编)?号|学号|"
    r"免許証(?:番号)?|会員番号|お客様番号|顧客番号|保険証(?:番号)?|車のナンバー|주민(?:등록)?번호|"
    r"여권번호|운전면허(?:번호)?|"
    r"차량번호|회원번호|고객번호|외국인등록번호)\s?(?:[:：]|は|是|为|為|은|는|이)?\s?$"
)
PART = "[A-Z0-9]{0,12}[0-9][A-Z0-9]{0,12}"
SMALL_PART = "[a-z]{0,3}[0-9][a-z0-9]{0,12}"
NO_PART = "(?!(?:NO|NR|ID|IS|NUM|THE|OF|MY|IST|EST|AND|CARD)[ ./-])"
VALUE = re.compile(
    rf"(?<![A-Za-z0-9])(?:(?:{NO_PART}[A-Z]{{1,5}}[ ./-]){{0,2}}{PART}(?:[ "
    rf"./-]{PART}){{0,8}}(?:-[A-Z]{{1,3}}| [A-Z]{{3}})?|"
    rf"{SMALL_PART}(?:[ ./-]{SMALL_PART}){{0,8}})(?![A-Za-z0-9])"
)
KOREAN_RESIDENT = re.compile(
    r"(?<![0-9-])[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])-[1-8][0-9]{6}(?![0-9-])"
)
NATIONAL_INSURANCE = re.compile(
    r"(?<![A-Za-z0-9])[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?: ?[0-9]{2}){3} ?[A-D](?![A-Za-z0-9])"
)
"""Of the United Kingdom (HMRC, NIM39110)."""
CODICE_FISCALE = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z](?![A-Za-z0-9])", re.I
)
SPANISH_ID = re.compile(
    r"(?<![A-Za-z0-9])(?P<lead>[XYZ]?)-?(?P<digits>[0-9]{7,8})-?(?P<check>[A-HJ-NP-TV-Z])(?![A-Za-"
    r"z0-9])"
)
SPANISH_CHECK_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
CPF = re.compile(r"(?<![0-9.])[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}(?![0-9])")
FRENCH_SOCIAL = re.compile(
    r"(?<![0-9])[12] ?[0-9]{2} ?(?:0[1-9]|1[0-2]) ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} ?[0-9]{3} "
    r"?[0-9]{2}(?![0-9])"
)
FINNISH_ID = re.compile(
    r"(?<![0-9A-Za-z])(?:0[1-9]|[12][0-9]|3[01])(?:0[1-9]|"
    r"1[0-2])[0-9]{2}[-+A][0-9]{3}[0-9A-FHJ-NPR-Y](?![0-9A-Za-z])"
)
UNMISTAKABLE = (KOREAN_RESIDENT, NATIONAL_INSURANCE, CODICE_FISCALE, CPF, FRENCH_SOCIAL, FINNISH_ID)
LETTERS_BEFORE = re.compile("(?:[A-Z]{1,5}[ ./-])+")
MIN_CHARS = 5
MIN_DIGITS = 2
MIN_DIGITS_AFTER_SIGN = 5
MIN_DIGITS_ALONE = 8
OTHER_USE = re.compile(
    r"[0-9]{1,2}[./ -][0-9]{1,2}[./ -][0-9]{2,4}|[0-9]{4}([./-])[0-9]{1,2}\1[0-9]{1,2}|(?:19|"
    r"20)[0-9]{2}(?:[-/ ](?:19|20)?[0-9]{2})?|"
    r"[0-9]{1,2}(?:ST|ND|RD|TH)",
    re.IGNORECASE,
)
"""Values after such a word that are no number of a document: dates, years."""


def find_document_numbers(text: str) -> Iterator[EntitySpan]:
    """Find `ID_NUMBER`: of licences, identity cards, tax, insurance, plates and customers."""
    for match in VALUE.finditer(text):
        start = _labelled_start(text, match)
        if start is not None and not MONEY_AFTER.match(text[match.end() : match.end() + 8].lower()):
            yield EntitySpan("ID_NUMBER", start, match.end(), RANK_PATTERN)
    for form in UNMISTAKABLE:
        for match in form.finditer(text):
            yield EntitySpan.of_match("ID_NUMBER", match, RANK_PATTERN)
    for match in SPANISH_ID.finditer(text):
        if is_spanish_id(match["lead"], match["digits"], match["check"]):
            yield EntitySpan.of_match("ID_NUMBER", match, RANK_PATTERN)


def _labelled_start(text: str, match: re.Match[str]) -> int | None:
    """Return the beginning of the number; letters of the match may be its label (`NIP 123…`)."""
    lead = LETTERS_BEFORE.match(match[0])
    starts = [match.start()]
    if lead:
        for space in re.finditer("[ ]", lead[0]):
            starts.append(match.start() + space.end())
    for start in starts:
        if _is_labelled(text, start, text[start : match.end()]):
            return start
    return None


def _is_labelled(text: str, start: int, number: str) -> bool:
    """Return True after the name of a document; bare digits must be more without "number"."""
    digits = sum(map(str.isdigit, number))
    if len(number) < MIN_CHARS or digits < MIN_DIGITS or OTHER_USE.fullmatch(number):
        return False
    before = text_before(text, start, 48)
    if EAST_ASIAN_LABEL.search(before):
        return True
    label = LABEL.search(before)
    if label is None:
        return False
    if label["word"] or not number.isdigit():
        return True
    return digits >= (MIN_DIGITS_AFTER_SIGN if label["sign"] else MIN_DIGITS_ALONE)


def is_spanish_id(lead: str, digits: str, check: str) -> bool:
    """Check a Spanish DNI or NIE by its letter, the number modulo 23 (Real Decreto 1553/2005)."""
    # A NIE begins with X, Y or Z, which count as a leading 0, 1 or 2.
    if lead:
        digits = f"{'XYZ'.index(lead)}{digits}"
    if len(digits) != 8:
        return False
    number = int(digits)
    return SPANISH_CHECK_LETTERS[number % 23] == check
