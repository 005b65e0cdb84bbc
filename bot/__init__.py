"""Discord and the web. Starts the trainer as a process of its own and never imports it."""
