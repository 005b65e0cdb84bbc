"""Guilds, channels and mutes in the database."""
