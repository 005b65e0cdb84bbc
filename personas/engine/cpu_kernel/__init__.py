"""Compiled forward pass for Llama-like models on CPUs with AVX-512 BF16."""
