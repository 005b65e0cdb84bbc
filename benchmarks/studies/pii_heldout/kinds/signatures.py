"""Signatures under e-mails and forum posts."""

from benchmarks.studies.pii_heldout.writing.templates import TemplatePair, TextKind

SIGNATURE = TextKind(
    name="signature",
    templates={
        "en": TemplatePair(
            personal="""
{bye}

{p1.full}
{job}
{org}
t: {phone}
e: {p1.email}
w: {p1.url}
%%
--
{p1.full} | {job} | {org}
{address}
Tel {phone} | Mob {phone}
%%
{bye}
{p1.first}

{p1.upper}
{job}, {org}
{address_lines}
%%
{bye},
{p1.first}
%%
{bye} - {p1.nick} x
%%
{bye}
{p1.init} ({job})
Direct line {phone}, fax {phone}
%%
-- 
{p1.handle}
running {tool} {version} since {year}
%%
___________________
{p1.first} | {p1.handle} | {city}
"{plain}"
%%
Yours sincerely

{p1.rev}
c/o {p2.plain}
{address_lines}
%%
Dr {p1.full}, {job}
pp {p2.init}
{p1.email}
%%
> {bye}
> {p1.full}
> {phone}
> {address}
%%
{bye}, {p1.first} & {p2.first}
{address_lines}
{p1.email}
%%
P.S. new number from {date}: {phone}. {p1.first}
%%
Sent from my {product}

{p1.full}
{p1.email} / {phone}
%%
[b]{p1.screen}[/b]
{city} local | {hobby} | {game}
find me: {p1.url}
%%
{p1.plain} (she/her)
{job}
{org}
{phone} ext {n} | {p1.email}
I work Monday to Wednesday. If it is urgent ring {p2.full} on {phone}
%%
Mrs {p1.last}
Treasurer
{street}, {CITY}
%%
{p1.full}, MSc, CEng
{job} @ {org}
""",
            neutral="""
{bye}

The {org} team
This mailbox is not monitored. {heading}
%%
--
"{title}" was better than the film. {score}
%%
-- 
{tool} {version} | {product} | {n} GB RAM | {n2} GB SSD
%%
CONFIDENTIALITY NOTICE: this message is meant for the addressee only. If you got it by mistake, \
delete it.
%%
Sent from my {product}
%%
{bye}
Your {brand} customer care
Ref {order}
%%
___________________
currently playing: {game}
currently reading: {title}
mains: {hero}, {hero}
%%
{job}
{org}
Opening hours: {day} to {day}, {time} - {time}
%%
{bye}, the {job}s
%%
-- 
[{heading}] read the wiki before you ask. {version} is out.
%%
"{plain}" - {hero}, book {n}
%%
Please consider the environment before printing. Registered charity, est. {year}. VAT reg on \
request.
%%
-- 
Best of {year}: {title}, {title}, {title}
%%
{bye}
PLEASE DO NOT REPLY
Case {order} | Build {version} | Page {n} of {n}
%%
~ {hero} of {realm}, level {n} bard ~
""",
        ),
        "de": TemplatePair(
            personal="""
Mit freundlichen Grüßen
{p1.full}
{address_lines}
Tel.: {phone}
E-Mail: {p1.email}
%%
Viele Grüße, {p1.first}
%%
LG {p1.nick} u. {p2.first}
%%
i. A. {p1.init}
Buchhaltung
Durchwahl {phone}
%%
Herzliche Grüße aus {city}
Ihre Familie {p1.last}
{street}
""",
            neutral="""
Mit freundlichen Grüßen
Ihr Serviceteam
Vorgang {order}
%%
Diese Nachricht wurde automatisch erstellt. {heading}
%%
-- 
Gerade gelesen: {title}. Wertung {n}/100
%%
Gesendet von meinem {product}
""",
        ),
        "fr": TemplatePair(
            personal="""
Cordialement,
{p1.full}
{address_lines}
Tél. {phone}
%%
Bises, {p1.first}
%%
Mme {p1.last} {p1.first}
Secrétariat
{p1.email} - {phone}
%%
Bien à vous
{p1.init}
{street}, {city}
""",
            neutral="""
Cordialement,
Le service clients
Dossier {order}
%%
Merci de ne pas répondre à ce message. {heading}
%%
-- 
Lecture du moment : {title}, page {n2}
""",
        ),
        "nl": TemplatePair(
            personal="""
Met vriendelijke groet,
{p1.full}
{address_lines}
{phone}
%%
Groetjes {p1.first}
%%
Mvg, fam. {p1.last}
{street}, {city}
{p1.email}
""",
            neutral="""
Met vriendelijke groet,
De klantenservice
Zaaknummer {order}
%%
Verzonden vanaf mijn {product}
%%
Lees eerst de {heading}. Versie {version}
""",
        ),
        "ja": TemplatePair(
            personal="""
よろしくお願いいたします。
--
{p1.plain}
{address_lines}
TEL: {phone}
%%
{p1.last}より
%%
株式会社みどり商事 営業部
{p1.plain}({p1.email})
""",
            neutral="""
※このメールは送信専用です。
受付番号 {order}
%%
--
最近読んだ本:『{title}』
%%
カスタマーサポート
受付時間 {time}〜{time}
""",
        ),
        "el": TemplatePair(
            personal="""
Με εκτίμηση,
{p1.full}
{address_lines}
Τηλ. {phone}
%%
Φιλικά, {p1.first}
{p1.email}
%%
Εκ μέρους της κας {p1.last}
κιν. {phone}
""",
            neutral="""
Με εκτίμηση,
Η ομάδα εξυπηρέτησης
Αρ. υπόθεσης {order}
%%
Μην απαντάτε σε αυτό το μήνυμα. {heading}
""",
        ),
    },
)
"""Signatures."""
