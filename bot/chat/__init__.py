"""From a message to the last edit of its reply."""
