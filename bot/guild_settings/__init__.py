"""What is set on Discord: each setting once, from which come its command, form and audit line."""
