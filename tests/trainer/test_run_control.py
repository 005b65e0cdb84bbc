"""What ends a command on SIGTERM and Ctrl-C, wherever it is at work."""

import asyncio
import os
import signal
import socket
import sys
import time

import pytest

from trainer.process.run_control import Terminated, raise_on_sigterm


class AskedToEndWhileFinalised:
    """Python drops what is raised in here."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        os.kill(os.getpid(), self.number)
        for _ in range(1000):  # the handler runs between two of these
            pass


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_that_comes_while_an_object_is_finalised_is_not_lost(number, raised):
    with pytest.raises(raised), raise_on_sigterm():
        AskedToEndWhileFinalised(number)
        time.sleep(10)
        pytest.fail("nobody heard the signal")


def test_a_second_signal_does_not_disturb_what_is_cleared_up():
    with pytest.raises(Terminated), raise_on_sigterm():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)


def test_other_dropped_errors_are_reported_as_ever(monkeypatch):
    class Broken:
        def __del__(self):
            raise ValueError("told")

    result = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: result.append(str(what.exc_value)))
    with raise_on_sigterm():
        Broken()
    assert result == ["told"]


async def test_raised_within_a_connection_it_is_not_taken_for_the_connections_fault(
    monkeypatch, caplog
):
    here, there = socket.socketpair()
    _reader, writer = await asyncio.open_connection(sock=here)

    class Asked:
        def send(self, data):
            raise Terminated

    with there, monkeypatch.context() as within:
        within.setattr(writer.transport, "_sock", Asked())
        with pytest.raises(Terminated):
            writer.write(b"hello")
    writer.close()
    assert "Fatal" not in caplog.text
