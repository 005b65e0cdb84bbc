"""Anonymisation: removes personal data from texts and replaces people by pseudonyms
(docs/privacy.md).
"""
