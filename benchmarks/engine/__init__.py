"""`python -m benchmarks.engine`: throughput and latency of many chats with many adapters, beside peft and llama.cpp."""
