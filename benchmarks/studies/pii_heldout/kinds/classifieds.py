"""Classified advertisements."""

from benchmarks.studies.pii_heldout.writing.templates import TemplatePair, TextKind

CLASSIFIED = TextKind(
    name="classified",
    casual=True,
    templates={
        "en": TemplatePair(
            personal="""
FOR SALE: {product}, {price} ono. Collect from {street}, {CITY}. {phone}
%%
selling my {product}, hardly used, {price}. text {p1.first} {phone}
%%
Room to let on {corner}, {price} pcm, no pets. Ask for {p1.first}
%%
WANTED {thing}. Will pay {price}. {p1.email}
%%
giving away {thing}, first come. {p1.full}, {address}
%%
piano lessons by {p1.full}, {city} and around, {price}/h, {p1.url}
%%
babysitter {p1.nick}, {age}, {city}, refs from the {p2.last} family, whatsapp {phone}
%%
FREE TO A GOOD HOME: {thing}. pm {p1.handle}
%%
house clearance {address_lines}
{day} {time} onwards, everything goes
%%
car for sale, reg {plate}, {n2}0 miles, {price}, {p1.last} {phone}
%%
swap: {game} for {game}. i'm in {city}, {p1.screen}
%%
Tel: {phone} (after {time}) or {phone}. Ask for {p1.first} or {p2.first}.
%%
handyman, no job too small. call {PERSON=will} or {p1.first}: {phone}
%%
yard sale!! {street}, {city}, {day} {time}. {brand}, {thing}, {title} dvds
%%
looking for my old school friend {p1.full}, born about {year}, lived at {street}
%%
paypal {p1.email} or transfer to {iban}, then i post it
%%
NO TIMEWASTERS. {price} FIRM. {p1.upper} {phone}
%%
{p1.first}'s Mobile Grooming, {city}. Book: {phone}, {p1.email}
""",
            neutral="""
FOR SALE: {product}, {price} ono, pm me
%%
selling my {product}, hardly used, {price}, {size}
%%
WANTED {thing}. Will pay {price}
%%
giving away {thing}, first come first served
%%
swap: {game} for {game}, or {title} on bluray
%%
{brand} jacket, size {n}, worn twice, {price}. NO OFFERS
%%
bike, {size} frame, {n} gears, {year}, new brake pads, {price}
%%
box of {title} and {title} paperbacks, {price} the lot
%%
sofa {size}, {price}, buyer collects, park outside
%%
{product} for parts, error {n2}, firmware {version}
%%
lot {n}: {thing}. lot {n}: {thing}. Start {price}
%%
WILL SWAP for {product}. mint, boxed, {sku}
%%
tickets {team} v {team}, {date}, row {n} seats {n}-{n}, face value {price}
%%
minis: {hero}, {hero}, 3 orcs, {price}, painted
%%
{heading}: all {brand} {pct} off until {day}
%%
hire {thing} from {price} a day, deposit {price}
%%
two bed flat, {n} sqm, {price} pcm, bills {price}, free {month}
""",
        ),
        "de": TemplatePair(
            personal="""
Verkaufe {product}, {price} VB, Abholung {street}, {city}, Tel. {phone}
%%
Zimmer frei, Ecke {corner}, bei {p1.last} klingeln
%%
Nachhilfe: {p1.first}, {city}, {p1.email}
""",
            neutral="""
Verkaufe {product}, {price} VB
%%
Suche {title} als Taschenbuch, zahle {price}
%%
Fahrrad, {year}, {n} Gänge, {price}
""",
        ),
        "fr": TemplatePair(
            personal="""
Vends {product}, {price}, à retirer {street}, {city}. {phone}
%%
Cours de piano, {p1.full}, {city}, {p1.url}
%%
Cherche chambre près de {corner}, {p1.first} {phone}
""",
            neutral="""
Vends {product}, {price}, très bon état
%%
Cherche {title} en poche, {price} maximum
%%
Vélo {year}, {n} vitesses, {price}
""",
        ),
        "es": TemplatePair(
            personal="""
Vendo {product}, {price}, recoger en {street}, {city}, {phone}
%%
Clases de guitarra, {p1.first}, {city}, {p1.email}
""",
            neutral="""
Vendo {product}, {price}, poco uso
%%
Busco {title}, pago {price}
""",
        ),
        "it": TemplatePair(
            personal="""
Vendo {product}, {price}, ritiro in {street}, {city}, {phone}
%%
Ripetizioni: {p1.first}, {city}, {p1.email}
%%
Affitto stanza, {corner}, chiedere di {p1.last}
""",
            neutral="""
Vendo {product}, {price}, come nuova
%%
Cerco {title}, pago {price}
""",
        ),
        "pl": TemplatePair(
            personal="""
Sprzedam {product}, {price}, odbiór {street}, {city}, tel. {phone}
%%
Korepetycje, {p1.first}, {city}, {p1.email}
%%
Auto {plate}, {price}, dzwonić do p. {p1.last}: {phone}
""",
            neutral="""
Sprzedam {product}, {price}
%%
Kupię {title}, dam {price}
""",
        ),
        "nl": TemplatePair(
            personal="""
Te koop: {product}, {price}, ophalen {street} in {city}, {phone}
%%
Oppas {p1.first}, {age}, {city}, app {phone}
""",
            neutral="""
Te koop: {product}, {price}, weinig gebruikt
%%
Gezocht: {title}, {price}
""",
        ),
        "zh": TemplatePair(
            personal="""
转让{product},{price},{city}自取,电话{phone},找{p1.plain}
%%
出租:{address},联系{phone}
""",
            neutral="""
转让{product},{price},九成新
%%
求购《{title}》,{price}
""",
        ),
    },
)
"""Classified advertisements."""
