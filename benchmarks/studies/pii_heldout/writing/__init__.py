"""Labels, templates, their filling, and habits of writing."""
