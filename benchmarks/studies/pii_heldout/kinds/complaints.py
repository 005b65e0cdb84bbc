"""Complaints to authorities, landlords and companies."""

from benchmarks.studies.pii_heldout.writing.templates import TemplatePair, TextKind

COMPLAINT = TextKind(
    name="complaint",
    templates={
        "en": TemplatePair(
            personal="""
{p1.full}
{address_lines}

Dear Sir or Madam, {gripe}. I have told your Mr {p2.last} {n} times.
Yours faithfully
{p1.init}
%%
I wish to report my neighbour {p1.full} of {street}. {gripe}.
%%
Re: parking fine {order}, vehicle {plate}. I was not the driver, my {relation} {p1.full} was.
%%
My name is {p1.full}, born {dob}, national insurance {id}. {gripe}.
%%
To the Ombudsman: on {date} officer {p1.last} stopped me at the corner of {corner}.
%%
complaint against Dr {p1.last}, {org}, {city}. Patient: {p2.rev}, {dob}
%%
You sent {p1.full}'s letters to {address}. We live at {address}.
%%
I, {p1.upper}, hereby object to decision {order}. Reach me on {phone}.
%%
the council tax for {street} ({CITY}) is wrong again. account {customer}. {p1.rev}
%%
{gripe} and when I rang, a man called {p1.first} hung up on me. My number is {phone}
%%
Witnesses: {p1.full}, {street}; {p2.full}, {phone}; {p3.full}
%%
Landlord: {p1.full}
Tenant: {p2.full}
Property: {address}
Matter: {gripe}
%%
please refund {price} to {iban}, {p1.full}. I will not write a third time.
%%
The account {p1.handle} is posting pictures of my daughter {p2.first}. Her school is in {city}.
%%
threats came from {p1.email} and the ip {ip}, between {time} and {time}
%%
My card {card} was charged {price} in a shop I have never seen. {p1.full}
%%
The page {p1.url} shows my house, {street}, without my consent.
%%
passport {passport} was taken at the border from {p1.full} on {date}
%%
Signed by the residents: {p1.init}, {p2.init}, {p3.init}, {p4.init}
%%
Mr & Mrs {p1.last}, Flat {n}, are noisy after {time}. {p2.first} from downstairs agrees.
""",
            neutral="""
Dear Sir or Madam, {gripe}. I have written {n} times.
%%
Re: parking fine {order}. The sign was not readable. {plain}
%%
To whom it may concern: {gripe}. I expect {price} by {date}.
%%
I hereby object to decision {order} of {date} under section {n}.
%%
{heading}. The form asks for page {n}; there is no page {n}.
%%
{gripe} and {gripe}. It is {month}. It was reported in {month}.
%%
Your {product} broke after {n} days. {brand} says it is wear.
%%
The road has {n} potholes, the largest {size}. Bus {n} drives round them.
%%
Noise measured: {n} dB at {time}, {n} dB at {time}
%%
The Data Protection Act gives me a right to an answer in {n} days.
%%
Your advert promised {pct}, the bill says {price}
%%
Complaint about the film {title} shown before {time}
%%
Customer service told me to hold for {n2} minutes. {plain}.
%%
Dear Council, in May the bins (yes, all {n}) were full. {gripe}
%%
Parking meters take {price} and print nothing. White lines are gone.
%%
I was sold {thing} as new. It is from {year}.
%%
The game {game} charges {price} for {hero}. That is gambling.
""",
        ),
        "de": TemplatePair(
            personal="""
{p1.full}, {address}

Hiermit lege ich Widerspruch gegen den Bescheid {order} ein.
%%
Mein Nachbar {p1.last} ({street}) grillt jeden {day}
%%
Aktenzeichen {order}, geb. {dob}, {p1.rev}, Tel. {phone}
""",
            neutral="""
Hiermit lege ich Widerspruch gegen den Bescheid {order} vom {date} ein.
%%
Seit {month} ist die Heizung defekt. Frist: {n} Tage
%%
{heading}: Seite {n} fehlt
""",
        ),
        "fr": TemplatePair(
            personal="""
{p1.full}
{address_lines}
Objet : réclamation {order}
%%
Je porte plainte contre M. {p1.last}, {street}, {city}
""",
            neutral="""
Objet : réclamation {order}. Sans réponse depuis {n} jours.
%%
Le chauffage est en panne depuis {month}
""",
        ),
        "es": TemplatePair(
            personal="""
Yo, {p1.full}, con DNI {id} y domicilio en {address}, reclamo
%%
Mi vecino {p1.first} {p1.last} hace ruido. Mi teléfono: {phone}
""",
            neutral="""
Reclamación {order}: {n} días sin respuesta
%%
La calefacción no va desde {month}
""",
        ),
        "it": TemplatePair(
            personal="""
Il sottoscritto {p1.full}, nato il {dob}, residente in {address}, C.F. {id}
%%
Reclamo contro il sig. {p1.last}, {street}
""",
            neutral="""
Reclamo {order}: nessuna risposta da {n} giorni
%%
Il riscaldamento è guasto da {month}
""",
        ),
        "el": TemplatePair(
            personal="""
Ο/Η {p1.full}, ΑΔΤ {id}, {address}, καταγγέλλω
%%
Ο γείτονας {p1.last} κάνει θόρυβο. Κινητό μου {phone}
""",
            neutral="""
Καταγγελία {order}: {n} μέρες χωρίς απάντηση
%%
Η θέρμανση δεν λειτουργεί από {month}
""",
        ),
        "no": TemplatePair(
            personal="""
Jeg, {p1.full}, fnr. {id}, {address}, klager på vedtak {order}
%%
Naboen {p1.last} i {street} bråker. Ring {phone}
""",
            neutral="""
Klage på vedtak {order} av {date}
%%
Varmen har vært borte siden {month}
""",
        ),
        "pl": TemplatePair(
            personal="""
Ja, {p1.full}, PESEL {id}, zam. {address}, składam skargę
%%
Sąsiad {p1.first} {p1.last} hałasuje, mój tel. {phone}
""",
            neutral="""
Skarga {order}: {n} dni bez odpowiedzi
%%
Ogrzewanie nie działa od {n} dni
""",
        ),
    },
)
"""Complaints."""
