"""Kills the bot's processes at named points, breaks their disk and network, and checks what is
left.
"""
