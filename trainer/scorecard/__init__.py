"""The score card of a version: what is measured of it, section by section (`personas.scorecard` has the types)."""
