"""Parts of slash commands, buttons and forms that all features share."""
