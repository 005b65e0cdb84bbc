"""The doctor: checks what keeps the bot from running, and names the remedy."""
