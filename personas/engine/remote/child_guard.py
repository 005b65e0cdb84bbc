"""Runs a command, and ends it once standard input is closed: `python child_guard.py COMMAND …`.

A server that the bot has started has to end with the bot, also after `kill -9`. The kernel closes
the bot's end of the pipe then, on every system. Imports nothing of the project: it runs as a file.
"""

import contextlib
import os
import subprocess  # nosec B404  # the command is the bot's own
import sys
import threading

END_TIMEOUT_S = 10.0
SIGNAL_EXIT_CODE = 128
"""A command that a signal ended has the exit code of this and the signal's number, as in shells."""


def main() -> int:
    """Run the command until it ends or standard input is closed, and return its exit code."""
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)  # nosec B603

    def end_with_parent() -> None:
        # Not sys.stdin: its lock would be held while this program ends.
        with contextlib.suppress(OSError):
            while os.read(0, 1):
                pass
        child.terminate()
        try:
            child.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()

    threading.Thread(target=end_with_parent, daemon=True).start()
    code = child.wait()
    return SIGNAL_EXIT_CODE - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main())
