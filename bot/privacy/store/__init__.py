"""The tables of consent, contributions, erasures and the requests for them."""
