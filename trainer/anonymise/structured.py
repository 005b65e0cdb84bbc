"""All recognisers of what has a form of its own, in one call: no model, no list of names."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.anonymise.bounds import narrowed
from trainer.anonymise.entity import Recogniser, Span
from trainer.anonymise.network import coded, discord_ids, emails, handles, ip_addresses, profiles
from trainer.anonymise.numbers_found import accounts, cards, ibans, identity_numbers, passports, ssns
from trainer.anonymise.phones import phones
from trainer.anonymise.places import addresses
from trainer.anonymise.secret_forms import secrets, url_secrets

RECOGNISERS: tuple[Recogniser, ...] = (secrets, url_secrets, emails, ip_addresses, profiles, passports, addresses)
OF_DIGITS: tuple[Recogniser, ...] = (cards, ibans, accounts, identity_numbers, ssns, discord_ids, phones)
"""Those that need seven digits at least."""
FEWEST_DIGITS = 7


def structured(text: str, code: Sequence[tuple[int, int]] | None = None) -> list[Span]:
    """What every recogniser finds, overlapping or not. Offsets are those of the text as it is given.

    `code`: where code lies in it, for a piece of a text that may begin inside; without it the text is asked.
    """
    text = narrowed(text)
    found = [span for recogniser in RECOGNISERS for span in recogniser(text)]
    found += handles(text, coded(text) if code is None else code)
    if sum(map(text.count, "0123456789")) >= FEWEST_DIGITS:
        found += [span for recogniser in OF_DIGITS for span in recogniser(text)]
    elif "<" in text:
        found += discord_ids(text)
    return found
