"""Replies that members have reported to the moderators of their server."""
