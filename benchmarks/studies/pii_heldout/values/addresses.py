"""Street addresses as each country writes them, on one line or broken over several."""

from random import Random

from benchmarks.studies.pii_heldout.values.numbers import fill_digits
from benchmarks.studies.pii_heldout.values.places import SHORT_TOWNS, STREETS, TOWNS

ENGLISH_COUNTRIES = ("us", "us", "us", "gb", "gb", "gb", "au", "ca", "ie")

LINES = {
    "us": (
        "{n} {street}|{town}, {region} {code}",
        "{n} {street}, Apt {u}|{town}, {region} {code}",
        "{n} {street} #{u}|{town} {region} {code}",
        "{n} {dir} {street}|Unit {u}|{town}, {region} {code}",
    ),
    "gb": (
        "{n} {street}|{town}|{code}",
        "Flat {u}|{n} {street}|{town} {code}",
        "{street_}{n}|{town}|{code}",
        "{n}a {street}|{town}",
        "Rose Cottage|{street}|{town}|{code}",
        "{n} {street}, {town}|{code}",
    ),
    "au": ("{n} {street}|{town} {region} {code}", "{u}/{n} {street}|{town} {region} {code}"),
    "ca": ("{n} {street}|{town}, {region}  {code}", "{u}-{n} {street}|{town} {region} {code}"),
    "ie": ("{n} {street}|{town}|{code}", "Apt {u}, {n} {street}|{town}"),
    "de": (
        "{street} {n}|{code} {town}",
        "{street} {n}a|D-{code} {town}",
        "{street} {n}, 2. OG links|{code} {town}",
        "{street} {n}/{u}|{code} {town}",
    ),
    "fr": (
        "{n}, {street}|{code} {town}",
        "{n} bis {street}|{code} {town}",
        "{n} {street}|Bât. B, appt {u}|{code} {town}",
    ),
    "es": (
        "{street}, {n}|{code} {town}",
        "{street} {n}, 3º B|{code} {town}",
        "{street} nº {n}, piso {u}|{code} {town}",
    ),
    "it": (
        "{street}, {n}|{code} {town} ({region})",
        "{street} {n}, int. {u}|{code} {town}",
        "{street} {n}/B|{code} {town} {region}",
    ),
    "nl": (
        "{street} {n}|{code} {town}",
        "{street} {n}-{u}|{code} {town}",
        "{street} {n} bis|{code}  {town}",
    ),
    "no": (
        "{street} {n}|{code} {town}",
        "{street} {n}B|{code} {town}",
        "{street} {n}, H0{u}01|{code} {town}",
    ),
    "pl": (
        "{street} {n}|{code} {town}",
        "{street} {n}/{u}|{code} {town}",
        "{street} {n} m. {u}|{code} {town}",
    ),
    "pt": (
        "{street}, {n}|{code} {town}",
        "{street}, n.º {n}, 2.º Esq.|{code} {town}",
        "{street} {n}, ap. {u}|{code} {town}",
    ),
    "el": (
        "{street} {n}|{code} {town}",
        "Οδός {street} {n}|{town} {code}",
        "{street} {n}, Τ.Κ. {code}|{town}",
    ),
    "ja": (
        "〒{code}|{town}{u}-{d}-{n}",
        "{town}{u}丁目{d}番{n}号",
        "〒{code} {town}{u}-{d}-{n}|ハイツ桜{u}0{d}号室",
    ),
    "zh": (
        "{town}{street}{n}号{u}栋{d}02室",
        "{town}{street}{n}号|邮编{code}",
        "{town}{street}{n}弄{u}号{d}01室",
    ),
    "ko": (
        "{town} {street} {n}, {u}0{d}호",
        "({code})|{town} {street} {n}",
        "{town} {street} {n}번길 {u}",
    ),
}
"""Formats by country or language; `|` is a comma or the end of a line."""

ENGLISH_TYPES = {
    "us": "St Street Ave Avenue Blvd Rd Dr Ct Ln Way Pl Pkwy",
    "gb": "Street Road Lane Close Avenue Terrace Gardens Crescent Rd Way Mews",
    "au": "St Rd Parade Crescent Ave Close",
    "ca": "St Ave Rd Cres Blvd",
    "ie": "Road Street Park Lawn Grove Terrace",
}

CORNERS = {
    "en": ("{a} and {b}", "{a} & {b}", "{a} St and {b} St", "{a}/{b}"),
    "de": ("{a} Ecke {b}", "{a}/{b}"),
    "fr": ("{a} et {b}",),
    "es": ("{a} esquina con {b}",),
    "it": ("{a} angolo {b}",),
    "pl": ("{a} i {b}",),
    "pt": ("{a} com {b}",),
}
"""How the corner of two streets is written by language; others use a stroke."""


def country_for(language: str, rng: Random) -> str:
    """Returns a country where the language is English, else the language."""
    return rng.choice(ENGLISH_COUNTRIES) if language == "en" else language


def _entries(text: str) -> list[str]:
    return [entry.replace("_", " ") for entry in text.split()]


def _street(country: str, rng: Random) -> str:
    if country in ENGLISH_TYPES:
        name = rng.choice(_entries(STREETS["en"]))
        if country == "us" and rng.random() < 0.2:
            name = rng.choice(("1st", "2nd", "3rd", "5th", "14th", "42nd"))
        return f"{name} {rng.choice(ENGLISH_TYPES[country].split())}"
    return rng.choice(_entries(STREETS.get(country, "-")))


def _postcode(country: str, code: str, rng: Random) -> str:
    endings = {"gb": " #@@", "ca": " #@#", "ie": " @#@#", "nl": " @@"}
    return code + fill_digits(endings.get(country, ""), rng)


def full_address(language: str, rng: Random, broken: bool) -> str:
    """Returns an address with its town; `broken` puts its parts on lines of their own."""
    country = country_for(language, rng)
    town, region, code = rng.choice(_entries(TOWNS[country])).split(",")
    number = rng.randrange(1, 3000 if country == "us" else 190)
    pattern = rng.choice(LINES[country])
    street = _street(country, rng)
    filled = pattern.format(
        n=number,
        street=street,
        street_=f"{street} ",
        town=town.upper() if broken and rng.random() < 0.2 else town,
        region=region,
        code=_postcode(country, code, rng),
        u=rng.randrange(1, 24) if country not in {"no", "ja", "zh", "ko"} else rng.randrange(1, 8),
        d=rng.randrange(1, 9),
        dir=rng.choice(("N", "S", "E", "W")),
    )
    joint = " " if country in {"ja", "zh", "ko"} else ", "
    return filled.replace("|", "\n" if broken else joint)


def street_and_number(language: str, rng: Random) -> str:
    """Returns a street with the number on the side where the country writes it, without a town."""
    country = country_for(language, rng)
    number = rng.randrange(1, 240)
    street = _street(country, rng)
    if country in ENGLISH_TYPES or country == "fr":
        return f"{number} {street}"
    if country == "ja":
        town = rng.choice(_entries(TOWNS["ja"])).split(",")[0]
        return f"{town}{number % 9 + 1}-{number % 13 + 1}-{number}"
    return f"{street}{number}号" if country == "zh" else f"{street} {number}"


def street_corner(language: str, rng: Random) -> str:
    """Returns the corner of two streets."""
    streets = rng.sample(_entries(STREETS.get(language, STREETS["en"])), 2)
    return rng.choice(CORNERS.get(language, ("{a}/{b}",))).format(a=streets[0], b=streets[1])


def town_name(language: str, rng: Random) -> str:
    """Returns a town, sometimes with its state where Americans write it."""
    if language in SHORT_TOWNS:
        return rng.choice(SHORT_TOWNS[language].split())
    country = country_for(language, rng)
    town, region, _ = rng.choice(_entries(TOWNS[country])).split(",")
    return f"{town}, {region}" if country == "us" and rng.random() < 0.3 else town
