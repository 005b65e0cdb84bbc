"""The gate: what a score card must show before its version may go live, with reasons and advice."""
