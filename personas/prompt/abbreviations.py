"""Abbreviations in whose full stop no sentence ends."""

ABBREVIATIONS = (
    *("Mr", "Mrs", "Ms", "Dr", "Prof", "Capt", "Sgt", "Lt", "Col", "Rev", "Sr", "Sra", "Dra", "St"),
    *("No", "vs", "ca"),
)
ABBREVIATION_LOOKBEHIND = "".join(rf"(?<!\b{word}\.)" for word in ABBREVIATIONS)
"""Beginning of a regular expression of what separates sentences."""
