"""llama.cpp for comparisons: built for this machine, its files, and its figures."""
