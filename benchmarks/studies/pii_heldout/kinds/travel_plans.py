"""Arrangements for moving house and for travel."""

from benchmarks.studies.pii_heldout.writing.templates import TemplatePair, TextKind

TRAVEL_PLAN = TextKind(
    name="travel_plan",
    casual=True,
    templates={
        "en": TemplatePair(
            personal="""
we're moving on {date}! new address: {address}
%%
{p1.first} lands in {city} at {time}, {p2.first} has the car
%%
Passenger: {p1.rev}
Passport: {passport}
DOB: {dob}
Seat 1{n}C
%%
keys are with {p1.first} at {street}, flat {n}. ring {phone} when you're outside
%%
movers come {day} {time} to {address_lines}
and unload at {address_lines}
%%
meet at the corner of {corner} at {time}, {p1.nick} drives the van ({plate})
%%
mail for {p1.full} please forward c/o {p2.full}, {address}
%%
booking {order}: {p1.upper}, {p2.upper}, 2 adults, {n} nights
%%
Is {p1.first} still subletting in {city}? {p2.first} needs a room from {month}
%%
i leave {city} {day} morning, crash at {p1.first}'s, then on to {city} to see the {p2.last}s
%%
landlord is a Mr {p1.last}, number {phone}, deposit to {iban}
%%
room list: {p1.first}+{p2.first}, {p3.first}+{p4.first}, {p5.first} on the sofa
%%
emergency contact while I'm away: {p1.full} ({relation}), {phone}
%%
my flat, {street}, third floor, name on the bell is {p1.last}/{p2.last}
%%
turn left after the church, it's number {n}, no wait, {street}. ask for {p1.first}
%%
hotel wants a card, use {card}, my name is {p1.rev}
%%
car hire under {p1.init}, licence {passport}, plate {plate}
%%
Airbnb host {p1.first} says check in at {time}, {address}, wifi is on the fridge
%%
from {CITY} to {CITY}, {firsts} in one car
""",
            neutral="""
we're moving on {date}! {n} boxes, {size}, no lift
%%
lands at {time}, gate {n}, seat 1{n}C, flight delayed {n} minutes
%%
packing list: {thing}, {thing}, {product}, {n} socks
%%
booking {order}: 2 adults, {n} nights, breakfast {price}
%%
is {capital} nice in {month}? or {capital}?
%%
movers charge {price} an hour, {n} km, min {n} hours
%%
platform {n}, the {time}, change once, {price} return
%%
trip ideas: the Louvre, the Brandenburg Gate, the Tower of London, {capital}
%%
will park at the station, may be {n} minutes late
%%
rent is {price} a month, {n} sqm, deposit {price}, free from {month}
%%
the guide book says {dish} is a must. {title} was filmed there
%%
in the game we travel from {realm} to {realm}, {n} days on horseback with {hero}
%%
baggage: {size} and {n} kg max, {brand} case fits
%%
{heading}: night trains are sold out until {date}
%%
weather in {month}: {n} degrees, rain {pct}
%%
jet lag again. {plain}
%%
bus {n} or tram {n}, both every {n} minutes on a {day}
""",
        ),
        "de": TemplatePair(
            personal="""
Neue Adresse ab {date}: {address}
%%
{p1.first} landet um {time} in {city}, {p2.first} holt sie ab
%%
Schlüssel liegt bei {p1.last}, {street}, Handy {phone}
%%
Treffpunkt {corner}, {p1.first} fährt ({plate})
""",
            neutral="""
Gleis {n}, Abfahrt {time}, {price}
%%
Miete {price} warm, {n} qm, frei ab {month}
%%
Packliste: {product}, {n} Socken, Reiseführer
""",
        ),
        "es": TemplatePair(
            personal="""
nueva dirección: {address}
%%
{p1.first} llega a {city} a las {time}
%%
las llaves las tiene {p1.first}, {street}, tel. {phone}
%%
quedamos en {corner}, {p1.first} trae el coche
""",
            neutral="""
andén {n}, salida {time}, {price}
%%
alquiler {price} al mes, {n} m2, desde {month}
%%
maleta de {size}, máximo {n} kilos
""",
        ),
        "fr": TemplatePair(
            personal="""
on déménage le {date} ! nouvelle adresse : {address_lines}
%%
{p1.first} arrive à {city} {day} à {time}
%%
Passager : {p1.rev}, passeport {passport}, né le {dob}
""",
            neutral="""
quai {n}, départ {time}, {price}
%%
loyer {price}, {n} m2, libre en {month}
%%
valise {size}, {n} kilos maximum
""",
        ),
        "nl": TemplatePair(
            personal="""
we verhuizen {date}! nieuw adres: {address}
%%
{p1.first} komt om {time} aan in {city}
%%
sleutel ligt bij {p1.first}, {street}, bel {phone}
""",
            neutral="""
spoor {n}, vertrek {time}, {price}
%%
huur {price} per maand, {n} m2
%%
koffer {size}, maximaal {n} kilo
""",
        ),
        "no": TemplatePair(
            personal="""
vi flytter {date}! ny adresse: {address}
%%
{p1.first} lander i {city} klokka {time}, ring {phone}
""",
            neutral="""
spor {n}, avgang {time}, {price}
%%
leie {price} i måneden, {n} kvm
""",
        ),
        "ja": TemplatePair(
            personal="""
{day}に引っ越します。新住所は{address}です。
%%
{p1.last}さんは{time}に{city}着、電話は{phone}
""",
            neutral="""
{n}番線、{time}発、{price}
%%
家賃{price}、{n}平米、{month}から
""",
        ),
        "pt": TemplatePair(
            personal="""
mudamos a {date}! morada nova: {address}
%%
a {p1.first} chega a {city} às {time}, liga {phone}
""",
            neutral="""
linha {n}, partida {time}, {price}
%%
renda {price}, {n} m2, livre em {month}
""",
        ),
    },
)
"""Travel plans."""
