"""Conversations on disk: as many as there are, in little memory, read again by number."""

from __future__ import annotations

import pickle
import tempfile
from array import array
from pathlib import Path
from types import TracebackType
from typing import Self

from trainer.conversation import Conversation


class Spool:
    """A file of this process alone, without a name, that goes with it: only so is pickle safe to read."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` None puts the file where the system keeps temporary ones."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by __exit__
        self._ends = array("q", [0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, conversation: Conversation) -> None:
        """Add a conversation at the end."""
        data = pickle.dumps(conversation, pickle.HIGHEST_PROTOCOL)
        self._file.seek(self._ends[-1])
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))

    def __getitem__(self, number: int) -> Conversation:
        self._file.seek(self._ends[number])
        conversation: Conversation = pickle.loads(self._file.read(self._ends[number + 1] - self._ends[number]))
        return conversation
