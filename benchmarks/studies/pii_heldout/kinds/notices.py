"""Notices of schools, clubs and houses."""

from benchmarks.studies.pii_heldout.writing.templates import TemplatePair, TextKind

NOTICE = TextKind(
    name="notice",
    templates={
        "en": TemplatePair(
            personal="""
{heading}
Please contact {p1.full} on {phone} to sign up.
%%
Congratulations to {firsts} who passed grade {n}!
%%
TEAM SHEET {day}
1 {p1.last}
2 {p2.last}
3 {p3.last} (c)
sub: {p4.last}
%%
CLASS 4B: {p1.rev}; {p2.rev}; {p3.rev}; {p4.rev}
%%
The AGM will be held at {address} on {date}, {time}. Apologies to the secretary, {p1.init}, \
{p1.email}
%%
Lost: grey cat, answers to Biscuit, near {corner}. Call {p1.first} {phone}
%%
Mrs {p1.last} is leaving us after {n} years; collection box in the office. {p2.first} {p2.last} \
takes over Year {n}.
%%
Treasurer's report: {p1.full} proposed, {p2.full} seconded. Balance {price}.
%%
Fees to {iban} ({p1.init}, treasurer) by {date}
%%
Photos of the fair by {p1.full}: {p1.url}
%%
Cake stall: {p1.first} (scones), {p2.first} ({dish}), {p3.first} ({dish})
%%
RESULTS
1. {p1.full} ({city}) {score}
2. {p2.full} ({city}) {score}
%%
To the residents of {street}: the water will be off {day}. Questions to caretaker {p1.last}, \
{phone}
%%
Choir trip: drop off at {street}, {city}, {time}. Ring {p1.nick} if late {phone}
%%
Happy birthday this week to {p1.first} {PERSON=P.}, {p2.first} {PERSON=W.} and {p3.first} from \
the kitchen!
%%
Coach {p1.last} says training moves to {day}. Parents' contact: {p2.full}, {p2.email}
%%
ATTENDANCE {date}
{p1.upper} present
{p2.upper} absent
{p3.upper} late
%%
In memory of {p1.full}, born {dob} in {city}, who ran this club for {n} years
%%
Membership no. {customer}: {p1.revbare}, junior, DOB {dob}
""",
            neutral="""
{heading}
Please sign up at the desk by {date}.
%%
{heading}: training moves to {day} {time}
%%
LUNCH MENU
{day}: {dish}
{day}: {dish}
%%
Year {n} trip: bring {thing} and {price}. Back by {time}
%%
FIXTURES
{team} v {team}, {day} {time}
Last result {score}
%%
School play this term: {title}. Tickets {price}
%%
The bins go out on {day}. {plain}
%%
Word of the week: GRACE. Mark it in your book by {day}.
%%
Chess club: {game} and {topic}, room {n}, {time}
%%
Lost property: {thing}, {thing}, one {product}. WILL BE GIVEN AWAY ON {day}
%%
Agenda: 1 Welcome 2 Minutes 3 Budget {price} 4 Summer fair 5 AOB
%%
Film night: {title}, {day} {time}, room {n}
%%
HOUSE POINTS: Griffins {n2}, Dragons {n2}, Phoenix {n2}
%%
Library fines rise to {price} in {month}. {title} is overdue {n} times
%%
Quiz answers: {capital}, {topic}, {year}, {title}
%%
Larp weekend: the host of {realm} meets {hero} at the oak, {time}
%%
MAY and AUGUST holidays: closed {date} to {date}. {heading}
""",
        ),
        "de": TemplatePair(
            personal="""
{heading}
Anmeldung bei {p1.full}, Tel. {phone}
%%
Klasse 4b: {p1.rev}; {p2.rev}; {p3.rev}
%%
Wir gratulieren {firsts} zur Prüfung!
""",
            neutral="""
{heading}
Anmeldung bis {date} im Büro
%%
Speiseplan {day}: {dish}
%%
Filmabend: {title}, {day} {time} Uhr
""",
        ),
        "it": TemplatePair(
            personal="""
{heading}
Iscrizioni presso {p1.full}, tel. {phone}
%%
Complimenti a {firsts}!
%%
La maestra {p1.last} lascia la scuola di {city}
""",
            neutral="""
{heading}
Iscrizioni entro {date}
%%
Menù {day}: {dish}
%%
Cineforum: {title}, {day} ore {time}
""",
        ),
        "pl": TemplatePair(
            personal="""
{heading}
Zapisy u p. {p1.full}, tel. {phone}
%%
Klasa 4b: {p1.revbare}, {p2.revbare}, {p3.revbare}
%%
Zebranie: {address}, prowadzi {p1.init}
""",
            neutral="""
{heading}
Zapisy do {date} w biurze
%%
Obiad ({day}): {dish}
%%
Kino: {title}, {day} {time}
""",
        ),
        "el": TemplatePair(
            personal="""
{heading}
Εγγραφές: {p1.full}, τηλ. {phone}
%%
Συγχαρητήρια στους {firsts}!
%%
Συνέλευση: {address}, πρόεδρος {p1.init}
""",
            neutral="""
{heading}
Εγγραφές ως {date}
%%
Μενού: {dish}, {dish}
%%
Ταινία: {title}, {day} {time}
""",
        ),
        "ko": TemplatePair(
            personal="""
{heading}
신청: {p1.plain} 선생님 {phone}
%%
합격 축하합니다: {firsts}
""",
            neutral="""
{heading}
신청은 {date}까지
%%
{day} 급식: {dish}
""",
        ),
        "es": TemplatePair(
            personal="""
{heading}
Inscripciones: {p1.full}, {phone}
%%
Equipo: {p1.last}, {p2.last}, {p3.last}, {p4.last}
""",
            neutral="""
{heading}
Inscripciones hasta el {date}
%%
Menú del {day}: {dish}
""",
        ),
    },
)
"""Notices."""
