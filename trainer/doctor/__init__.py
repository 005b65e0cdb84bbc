"""The doctor: what this machine can train, what is wrong with it, and what to do about that."""
