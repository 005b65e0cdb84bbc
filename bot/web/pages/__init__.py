"""The pages of the dashboard, a module or folder per section."""
