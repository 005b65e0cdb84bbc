"""Lines of CVs and profiles."""

from benchmarks.studies.pii_heldout.writing.templates import TemplatePair, TextKind

CV_LINE = TextKind(
    name="cv_line",
    templates={
        "en": TemplatePair(
            personal="""
{p1.upper}
{job}
{address} | {phone} | {p1.email}
%%
Curriculum Vitae: {p1.full}, born {dob}, {city}
%%
REFERENCES
{p1.full}, {job}, {org}, {phone}
{p2.full}, {job}, {org}, {p2.email}
%%
{year}-{year} {job}, {org}, {city} (reporting to {p1.full})
%%
Name: {p1.rev} / Date of birth: {dob} / Driving licence: {passport}
%%
Portfolio {p1.url}, code {p2.url}
%%
Name {p1.plain}
Nationality British
NI number {id}
%%
Supervised by Prof. {p1.full} and Dr {p2.init}; thesis on {topic}
%%
{p1.full}
{address_lines}
Objective: a post as {job}
%%
{p1.full} is a {job} with {n} years at {org}. Based in {city}. Contact: {p1.handle}
%%
Next of kin {p1.first} {p1.last} ({relation}), {phone}
%%
Publications: {p1.rev}, {p2.rev} & {p3.rev} ({year}). On {topic}.
%%
Volunteer, {org}, {year} to now. Ask {p1.first} there.
%%
Reference for {p1.full}: punctual, honest, {plain}. Signed, {p2.full}, {job}
%%
{p1.first} {p1.last}, formerly {p2.last}. Schools in {city} and {city}.
%%
Current address until {date}: {address}; after that c/o {p1.plain}, {street}
%%
{p1.init} | {CITY} | {phone}
{job}, {tool}, {tool}
""",
            neutral="""
SKILLS
{tool}, {tool}, {tool} ({n} years), {tool}
%%
{year}-{year} {job}, large retailer. Budget {price}, team of {n}
%%
Objective: a post as {job}
%%
INTERESTS: {hobby}, {hobby}, {game}, {topic}
%%
Grade {n}/100, top {pct}, thesis on {topic}
%%
Certificates: {tool} {version}, First Aid {year}, Forklift {year}
%%
EDUCATION / EXPERIENCE / REFERENCES ON REQUEST
%%
Led move from {tool} {version} to {tool} {version}, saved {price} and {n2} hours
%%
Languages: English (C2), French (B1), Latin. Typing {n} wpm
%%
{job}, {year} to {year}. Sales up {pct}. {plain}.
%%
Wrote {n2} tests for {tool}; coverage {pct}
%%
Favourite book: {title}. Favourite tool: {tool}
%%
HEAD CHEF, {year}: {dish}, {dish}, {n} covers
%%
Awards: Golden Quill {year}, Silver Spoon {year}, {n} nominations
%%
Salary wish {price}, notice {n} weeks, start {month}
%%
Game credits: writer of {hero} and the quests of {realm}, {year}
""",
        ),
        "de": TemplatePair(
            personal="""
Lebenslauf
{p1.full}
geb. {dob} in {city}
{address}
%%
Name: {p1.rev}, Telefon: {phone}, E-Mail: {p1.email}
%%
Betreut von Prof. {p1.last} und Dr. {p2.last}
""",
            neutral="""
KENNTNISSE: {tool}, {tool}, Englisch (C1)
%%
{year}-{year} Schichtleiter, {n} Mitarbeiter, Umsatz +{pct}
%%
Lieblingsbuch: {title}
""",
        ),
        "fr": TemplatePair(
            personal="""
{p1.upper}
né(e) le {dob} à {city}
{address}
{phone}
%%
N° de sécurité sociale {id}, {p1.full}
""",
            neutral="""
COMPÉTENCES : {tool}, {tool}, anglais (C1)
%%
{year}-{year} chef d'équipe, {n} personnes
""",
        ),
        "it": TemplatePair(
            personal="""
Curriculum di {p1.full}
nato a {city} il {dob}
{address}, {phone}
%%
C.F. {id}, {p1.rev}
""",
            neutral="""
COMPETENZE: {tool}, {tool}, inglese (C1)
%%
{year}-{year} capoturno, {n} persone, libro preferito {title}
""",
        ),
        "pl": TemplatePair(
            personal="""
CV
{p1.full}
ur. {dob}, {city}
{p1.email}, {phone}
%%
PESEL {id}, {p1.rev}, {address}
""",
            neutral="""
UMIEJĘTNOŚCI: {tool}, {tool}, angielski (C1)
%%
{year}-{year} brygadzista, {n} osób
""",
        ),
        "nl": TemplatePair(
            personal="""
CV van {p1.full}
geboren {dob} te {city}
{address}
%%
BSN {id}, {p1.init}, {p1.email}
""",
            neutral="""
VAARDIGHEDEN: {tool}, {tool}, Engels (C1)
%%
{year}-{year} teamleider, {n} mensen
""",
        ),
        "ko": TemplatePair(
            personal="""
이력서
성명: {p1.plain}
생년월일: {dob}
주소: {address}
연락처: {phone}
%%
주민등록번호 {id}, {p1.plain}
""",
            neutral="""
기술: {tool}, {tool}, 영어
%%
{year}-{year} 팀장, {n}명
""",
        ),
        "pt": TemplatePair(
            personal="""
Curriculum: {p1.full}
nascido a {dob} em {city}
{address}
%%
NIF {id}, {p1.rev}, {p1.email}
""",
            neutral="""
COMPETÊNCIAS: {tool}, {tool}, inglês (C1)
%%
{year}-{year} chefe de turno, {n} pessoas
""",
        ),
    },
)
"""Lines of CVs."""
