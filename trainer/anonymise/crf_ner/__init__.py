"""CRF tagger: a linear-chain CRF that finds people and street addresses in Latin script."""
