"""Learning from preferences: what was liked better than what, and replies that somebody taught."""
