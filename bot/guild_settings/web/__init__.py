"""Forms of settings, and the page of a persona's."""
