"""The chat engine over one or several servers (`ENGINE=vllm`, `ENGINE=openai`)."""
