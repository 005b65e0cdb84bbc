"""Invoices, orders and receipts."""

from benchmarks.studies.pii_heldout.writing.templates import TemplatePair, TextKind

ORDER = TextKind(
    name="order",
    templates={
        "en": TemplatePair(
            personal="""
INVOICE {order}
Bill to:
{p1.full}
{address_lines}
1 x {product}  {price}
Total {price}
%%
Order {order} for {p1.full}, {address}. {n} x {product}, {price} each. Customer no. {customer}
%%
Ship to: {p1.upper}, C/O {p2.upper}, {address}
Phone: {phone}
%%
Hi {p1.first}, your {product} is on its way to {street}. Tracking {tracking}
%%
please pay into {iban}, account holder {p1.full}, reference {order}
%%
Card ending? I gave you the whole thing: {card}, exp 09/31, name {p1.init}
%%
Payment method: Visa {card}
Cardholder: {p1.upper}
Billing address same as delivery
%%
RECEIPT {date} {time}
served by: {p1.first}
1 {dish} {price}
2 {dish} {price}
%%
leave the parcel with {p1.full} next door ({street}), the bell doesn't work
%%
Qty  Item  Price
{n}  {product}  {price}
Deliver: {address_lines}
Contact: {p1.email}
%%
Customer: {p1.revbare}
Account: {customer}
Items: {product} ({sku}), {product} ({sku})
Paid {price} on {date}
%%
Gift message: Happy birthday {p1.first}! love from {p2.first}, {p3.first} and the {p4.last}s
%%
Refund of {price} to {p1.full}, IBAN {iban}. BIC on file.
%%
Sold to {p1.init} of {city}: {thing}, {price}, cash
%%
Order placed from {ip} by {p1.email} at {time}, flagged for review
%%
the invoice should be on my husband's name, {p1.full}, not {p1.first} {p2.last}. Address \
{street}, postcode as before
%%
Attn: {p1.full}
{org}
{address_lines}
Re: PO {order}
%%
Tax ID of the buyer: {id}
Name: {p1.plain}
""",
            neutral="""
INVOICE {order}
1 x {product}  {price}
{n} x {product}  {price}
Total {price}
%%
Order {order}: {n} x {product} ({sku}), {price} each. Ships {day}
%%
Tracking {tracking}: out for delivery, {time}
%%
Qty  Item  Price
{n}  {dish}  {price}
{n}  {dish}  {price}
SUBTOTAL {price}
%%
RECEIPT {date} {time}
TILL {n}  TRANS {order}
{brand} {price}
CHANGE {price}
%%
Card declined, code {n2}. Try another card. Your basket: {product}, {product}
%%
{heading}: {pct} off {brand} until {date}
%%
Part no. {sku}, {size}, fits {product}
%%
Reorder: {thing}, {thing}, {n} of each. PO {order}
%%
Delivery slots: {day} {time}-{time}, {day} {time}-{time}. {price} on {day}s
%%
Backorder: {title} (hardback), ISBN {sku}, due {month}
%%
Net {price}, VAT {pct}, gross {price}. Terms: {n} days. Late fee {pct}.
%%
Your {brand} points: {n2}. Worth {price} off {product}
%%
2 {dish}, 1 {dish}, 1 {dish} no onions. Table {n}. {price}
%%
Returns: {product} must come back in {n} days in its box, {size}
%%
Model {sku} replaces model {sku}. Firmware {version}
""",
        ),
        "de": TemplatePair(
            personal="""
Rechnung {order}
{p1.full}
{address_lines}
1 x {product} {price}
%%
Bitte überweisen an {p1.full}, IBAN {iban}, Zweck {order}
%%
Lieferung an {p1.last}, {address}, Tel. {phone}
""",
            neutral="""
Rechnung {order}
1 x {product} {price}
Summe {price}
%%
{n} x {dish} {price}
%%
Bestellung {order} wird am {day} geliefert, Sendung {tracking}
""",
        ),
        "fr": TemplatePair(
            personal="""
FACTURE {order}
{p1.upper}
{address_lines}
Total TTC {price}
%%
Virement à {p1.full}, IBAN {iban}
%%
Livrer chez Mme {p1.last}, {address}
""",
            neutral="""
FACTURE {order}
{n} x {product} {price}
%%
Colis {tracking} livré le {day}
%%
{heading} : {pct} sur {product}
""",
        ),
        "it": TemplatePair(
            personal="""
Fattura {order}
Spett.le {p1.full}
{address_lines}
C.F. {id}
%%
Bonifico a {p1.full}, IBAN {iban}, {price}
%%
Consegnare a {p1.last} {p1.first}, {address}, tel. {phone}
""",
            neutral="""
Fattura {order}
{n} x {product} {price}
%%
{dish} {price}, {dish} {price}, coperto 2
%%
Spedizione {tracking}, consegna {day}
""",
        ),
        "nl": TemplatePair(
            personal="""
Factuur {order}
t.n.v. {p1.full}
{address_lines}
Bedrag {price}
%%
Graag overmaken op {iban} t.n.v. {p1.init}
%%
Pakket voor {p1.first} bezorgen bij de buren op {street}
""",
            neutral="""
Factuur {order}
{n} x {product} {price}
%%
Bestelling {order} komt {day}, track {tracking}
%%
{n} x {dish} à {price}
""",
        ),
        "zh": TemplatePair(
            personal="""
订单号{order}
收货人:{p1.plain}
电话:{phone}
地址:{address}
%%
发票抬头:{p1.plain},身份证{id}
""",
            neutral="""
订单号{order}
{product} x {n} 共{price}
%%
快递单号{tracking},预计{day}送达
""",
        ),
        "pl": TemplatePair(
            personal="""
Faktura {order}
Nabywca: {p1.full}
{address_lines}
PESEL {id}
%%
Przelew: {p1.rev}, {iban}, {price}
""",
            neutral="""
Faktura {order}
{n} x {product} {price}
%%
Przesyłka {tracking}, dostawa: {day}
""",
        ),
    },
)
"""Orders."""
