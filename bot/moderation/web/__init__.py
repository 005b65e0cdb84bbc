"""Pages of members who signed in with Discord: what they may see and do for their servers."""
