"""`python -m benchmarks.engine`: throughput and latency of many chats with many adapters, next to
other systems.
"""
