"""The compiled way through a batch, for Llama-like models in bfloat16 on processors with AVX-512 BF16.

`build` compiles it once where there is a C++ compiler; `rows` runs a model with it. Everything works without.
"""
