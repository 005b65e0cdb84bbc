"""One module per input format; all yield the same `Conversation`."""
