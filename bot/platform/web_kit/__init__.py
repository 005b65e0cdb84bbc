"""Parts of the HTTP API and the dashboard that all features share."""
