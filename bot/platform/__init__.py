"""Parts below every feature: time, errors, permissions, the database, and kits for Discord and the
web.
"""
