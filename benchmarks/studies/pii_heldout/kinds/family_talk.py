"""Talk within families and about them."""

from benchmarks.studies.pii_heldout.writing.templates import TemplatePair, TextKind

FAMILY_TALK = TextKind(
    name="family_talk",
    casual=True,
    templates={
        "en": TemplatePair(
            personal="""
can you pick {p1.first} up from {p2.first}'s at {time}? it's {street}
%%
grandma {p1.first} turns {age} on {day}, {firsts} are all coming
%%
{p1.first}'s teacher Mrs {p2.last} rang, {p1.first} has a temperature
%%
mum says uncle {p1.first} is staying with aunt {p2.first} in {city} until {month}
%%
dinner at ours {day}? {p1.first} & {p2.first} can bring {p3.first}, {dish} for everyone
%%
we named her {p1.first} {p2.first}. born {dob}, 3.4 kilos, mum and baby fine
%%
dad's new number is {phone}, delete the old one. love, {p1.first}
%%
{p1.first} no. {p1.first} put it down. sorry, my {age} year old
%%
your {relation} {p1.full} was on tv, standing on the corner of {corner}!
%%
the kids ({p1.first}, {p2.first}, little {p3.first}) want {title} again
%%
{p1.first} got into the school in {city}!!! so proud of our {p1.nick}
%%
for the will: {p1.full}, born {dob}, of {address}
%%
has anyone told {p1.first} that {p2.first} and {p3.first} split up
%%
tell {PERSON=will} and {p1.first} that nan's moved to {address}
%%
{p1.first}s passport has run out, number {passport}, renew before {month}
%%
Love to {p1.first} and the boys. {p2.first} xx
%%
my {relation} {p1.first} married into the {p2.last}s, the ones from {city}
%%
doctor's appointment for {p1.first} {day} {time}, NHS number {id}
%%
happy bday {p1.nick}!!! {age} today omg. see u at {p2.first}s
""",
            neutral="""
can you pick the little one up at {time}? {plain}
%%
grandma turns {age} on {day}, I'll do {dish}
%%
mum says we will need {thing} and {n} chairs
%%
dinner at ours {day}? {dish} or {dish}
%%
the kids want {title} again, third time this week
%%
baby is {n} weeks old, sleeps {n} minutes at a time, send {dish}
%%
dad bought {product} for {price}. mum will not be amused
%%
hope, faith and {dish}, that's our sunday
%%
who ate the {dish}?? it was for {day}
%%
my {relation} lost at {game} {score} and is sulking
%%
grandpa tells the one about {thing} every {month}
%%
may I remind everyone: {day}, {time}, no phones at table
%%
{title} made the whole family cry, even the {job}
%%
in the story {hero} marries the princess of {realm}, bedtime took {n} minutes
%%
school sent a list: {thing}, {size} folder, {n} pencils, {price} for the trip
%%
{heading}: fridge is empty, {plain}
%%
sis got a {score} win, her team plays {team} next (on the console)
""",
        ),
        "de": TemplatePair(
            personal="""
Kannst du {p1.first} um {time} von {p2.first} abholen? {street}
%%
Oma {p1.first} wird {age}, Tante {p2.first} kommt aus {city}
%%
{p1.first} hat Fieber, Frau Dr. {p2.last} meint, zu Hause bleiben
""",
            neutral="""
Kannst du die Kleine um {time} abholen?
%%
Oma macht am {day} {dish}
%%
Die Kinder wollen schon wieder {title} sehen
""",
        ),
        "es": TemplatePair(
            personal="""
¿recoges a {p1.first} a las {time}? está en casa de {p2.first}
%%
la abuela {p1.first} cumple {age}, viene la tía {p2.first} de {city}
%%
el tío {p1.first} ha cambiado de número: {phone}
""",
            neutral="""
¿recoges a la niña a las {time}?
%%
la abuela hace {dish} el {day}
%%
los niños quieren ver {title} otra vez
""",
        ),
        "it": TemplatePair(
            personal="""
vai tu a prendere {p1.first} alle {time}? è da {p2.first}
%%
nonna {p1.first} compie {age} anni, vengono {firsts}
%%
zio {p1.first} si è trasferito a {city}, {address}
""",
            neutral="""
vai tu a prendere la bimba alle {time}?
%%
la nonna fa {dish} {day}
%%
i bambini vogliono rivedere {title}
""",
        ),
        "no": TemplatePair(
            personal="""
kan du hente {p1.first} klokka {time}? hun er hos {p2.first}
%%
bestemor {p1.first} fyller {age}, tante {p2.first} kommer fra {city}
%%
{p1.first} er født {dob}, fødselsnummer {id}
""",
            neutral="""
kan du hente den minste klokka {time}?
%%
bestemor lager {dish} på {day}
%%
ungene vil se {title} igjen
""",
        ),
        "ko": TemplatePair(
            personal="""
{p1.first}이 {time}에 데리러 갈 수 있어?
%%
{p1.plain} 할머니 생신이 {dob}이야
""",
            neutral="""
애기 {time}에 데리러 갈 수 있어?
%%
할머니가 {day}에 {dish} 해주신대
""",
        ),
        "el": TemplatePair(
            personal="""
η γιαγιά {p1.first} γίνεται {age}, έρχεται κι ο {p2.first} από {city}
%%
πάρε τηλέφωνο τη θεία {p1.first}: {phone}
""",
            neutral="""
η γιαγιά φτιάχνει {dish} την {day}
%%
τα παιδιά θέλουν πάλι {title}
""",
        ),
    },
)
"""Family talk."""
