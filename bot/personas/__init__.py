"""Personas, their cards and lore, as servers and the operator keep them."""
