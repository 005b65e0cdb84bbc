"""When a persona answers in a channel: quick lines, reply chance, quiet hours."""
