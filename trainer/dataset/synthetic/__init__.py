"""Material made of lore: by rules, or by a model whose replies are judged."""
