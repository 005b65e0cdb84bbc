"""The audit channel of a server: who changed what of its personas, and when."""
