"""Programs that generate files shipped with the project."""
