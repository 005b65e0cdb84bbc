"""The trainer as a process: its environment, cancellation and pauses, events and error reports."""
