"""`python -m personas.engine.bench`: how fast many chats with many adapters are answered, beside three other ways."""
