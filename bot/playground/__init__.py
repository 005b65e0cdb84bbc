"""Side-by-side replies and dialogues on the dashboard."""
