"""Real vLLM servers as processes, recordings of their answers, and `make test-vllm`."""
