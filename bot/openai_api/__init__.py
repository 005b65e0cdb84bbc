"""Chat completions as OpenAI's clients request them."""
