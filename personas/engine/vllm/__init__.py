"""The chat engine over one or several vLLM servers (`ENGINE=vllm`)."""
