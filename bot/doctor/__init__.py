"""The doctor: what keeps this bot from running, or from running well, and the remedy.

`here` looks at settings, home, disk and port, `on_discord` at what Discord grants; what the machine can train is the
trainer's doctor's to say, which `trainers` asks in a process of its own. `commands` is `python -m bot doctor`.
"""
