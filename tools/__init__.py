"""Programs that make files which ship."""
