"""Support tickets and answers to them."""

from benchmarks.studies.pii_heldout.writing.templates import TemplatePair, TextKind

SUPPORT_TICKET = TextKind(
    name="support_ticket",
    templates={
        "en": TemplatePair(
            personal="""
Ticket {order}
Reporter: {p1.full} ({p1.email})
Version: {version}
Steps: open {tool}, wait {n} s, crash
%%
Hello, this is {p1.full}. My account {p1.screen} is locked, please call {phone}.
%%
{hello}, my {product} stopped after update {version}. Serial {sku}. You can reach me at \
{p1.email}, {p1.first}
%%
user {p1.handle} logged in from {ip} at {time}, then {ip} at {time}. Compromised?
%%
Caller: {p1.rev}, DOB {dob}, customer {customer}. Wants a refund of {price}.
%%
Dear {p1.first}, thank you for contacting {org}. My name is {p2.first} and I will help you today.
%%
please change my delivery address from {address} to {address}
%%
card number {card} declined, code {n2}. other card {card} same. {p1.first}
%%
name: {p1.plain}
phone: {phone}
issue: {gripe}
%%
I've already explained this to {p1.first}, {p2.first} and your supervisor Mr {p3.last}
%%
I want my data deleted. Name {p1.full}, mail {p1.email}, last ip {ip}
%%
escalated by {p1.init} to {p2.init} {date} {time}: customer in {city} without service for {n} days
%%
for verification: passport {passport}, name as on passport {p1.upper}
%%
the engineer ({p1.first}, van {plate}) came {day} and {gripe}
%%
my website {p1.url} shows error {n2} since {version}
%%
you charged {card} twice. I'm {p1.full}, {street}, {city}
%%
log: {date} {time} auth failed user={p1.email} ip={ip} code={n2}
%%
hi its {p1.nick} again from ticket {order}, still broken, {plain}
%%
assigned to: {p1.first}
cc: {p2.email}
{heading}
""",
            neutral="""
Ticket {order}
Version: {version}
Steps: open {tool}, wait {n} s, crash
Expected: no crash
%%
{hello}, my {product} stopped after update {version}. Serial {sku}.
%%
error {n2} at line {n2}: module {tool} {version} wants {tool} {version}
%%
The app closes when I open {title}. {n2} MB free. Build {version}
%%
{heading}: outage {day} {time} to {time}, all regions
%%
Have you tried turning it off and on? Hold the button for {n} seconds, then {n} more.
%%
Duplicate of {order}. Fixed in {version}, closed.
%%
log: {date} {time} retry {n} of {n}, code={n2}, latency {n2} ms, version={version}
%%
Dear customer, we will mark this as solved. May we ask you to rate us? {n} of 100
%%
Feature request: dark mode for {tool}, export to {tool}, grace period of {n} days
%%
{gripe}. Reference {order}. No answer since {month}
%%
The {brand} adapter ({sku}) gets hot at {n} W. Is that {topic} or a fault?
%%
Server says 127.0.0.1:{n2} refused. {tool} {version} is running.
%%
Dear sir or madam, {gripe}. {plain}.
%%
refund for {game} please, bought {date} for {price}, played {n} minutes
%%
Page freezes on {product} pages, screenshot {size}, browser {version}
%%
npc {hero} in {realm} gives the quest twice, {version}
""",
        ),
        "de": TemplatePair(
            personal="""
Guten Tag, mein Name ist {p1.full}, Kundennummer {customer}. Rückruf bitte unter {phone}
%%
Anrufer: {p1.rev}, geb. {dob}, {address}
%%
Herr {p1.last} hat sich von {ip} angemeldet, Konto {p1.email}
""",
            neutral="""
Nach Update {version} startet {tool} nicht mehr. Fehler {n2}
%%
Vorgang {order}: behoben in {version}
%%
Mein {product} (Nr. {sku}) ist seit {day} defekt
""",
        ),
        "fr": TemplatePair(
            personal="""
Bonjour, je suis {p1.full}, client n° {customer}, rappelez-moi au {phone}
%%
Mon compte {p1.email} est bloqué depuis {day}. {p1.first}
%%
Technicien : {p1.first}, intervention au {address}
""",
            neutral="""
Depuis la version {version}, {tool} plante. Erreur {n2}
%%
Mon {product} (réf. {sku}) ne marche plus
%%
Demande {order} close
""",
        ),
        "pt": TemplatePair(
            personal="""
Bom dia, chamo-me {p1.full}, NIF {id}, telemóvel {phone}
%%
A minha conta {p1.email} foi bloqueada. {p1.first}
%%
Cliente: {p1.rev}, {address}
""",
            neutral="""
Depois da versão {version} o {tool} não abre. Erro {n2}
%%
O meu {product} (ref. {sku}) avariou {day}
%%
Pedido {order} resolvido
""",
        ),
        "zh": TemplatePair(
            personal="""
您好,我是{p1.plain},账号{p1.email}登录不了,电话{phone}
%%
用户{p1.plain}反馈:IP {ip} 无法访问
""",
            neutral="""
升级到{version}后{tool}打不开,错误码{n2}
%%
{product}(编号{sku})坏了
""",
        ),
        "ja": TemplatePair(
            personal="""
{p1.plain}と申します。アカウント{p1.email}に入れません。電話は{phone}です。
%%
担当:{p1.last} 様
住所変更:{address}
""",
            neutral="""
{version}にしてから{tool}が起動しません。エラー{n2}
%%
{product}(型番{sku})が動きません
""",
        ),
    },
)
"""Support tickets."""
