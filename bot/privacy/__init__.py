"""Members' privacy: consent, what is stored about a member, and erasure."""
