"""The trainer as a process: its environment, how it is stopped and held, what it says and how errors are told."""
