"""Labels of personal data, and their counterparts in the scheme of presidio-research."""

PRESIDIO_TYPES = {
    "PERSON": frozenset({"PERSON"}),
    "ADDRESS": frozenset({"STREET_ADDRESS", "ZIP_CODE"}),
    "PLACE": frozenset({"GPE"}),
    "PHONE": frozenset({"PHONE_NUMBER"}),
    "EMAIL": frozenset({"EMAIL_ADDRESS"}),
    "URL": frozenset({"DOMAIN_NAME"}),
    "HANDLE": frozenset[str](),
    "IBAN": frozenset({"IBAN_CODE"}),
    "CARD": frozenset({"CREDIT_CARD"}),
    "ID": frozenset({"US_SSN", "US_DRIVER_LICENSE"}),
    "DATE_OF_BIRTH": frozenset[str](),
    "IP": frozenset({"IP_ADDRESS"}),
}
"""Entity types of presidio-research's `entity_type` by label.

Its ORGANIZATION, DATE_TIME, TITLE, NRP and AGE have no label here: a benchmark over both
leaves them out.
"""

LABELS = tuple(PRESIDIO_TYPES)
"""All labels."""
