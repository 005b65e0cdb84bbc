"""Voice messages into words, by a Whisper model in a process of its own."""
