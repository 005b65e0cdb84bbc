"""What a run will take, reckoned from its settings, its model's shape and its samples: memory, and time."""
