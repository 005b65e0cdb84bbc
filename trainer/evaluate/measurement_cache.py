"""Measurements that another evaluation can use again: losses of replies, and generated replies.

They are kept in `cache/measurements.sqlite` of the home, by everything that they depend on: the
base model, the adapter's weights, the precision, the device, and the tokens of the prompt. A cache that cannot
be used, or an entry that is damaged, only costs the time to measure again.
"""

import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from personas.prompt.renderer import TokenizedSample
from trainer.train.losses import TokenLosses

CACHE_FILE = Path("cache") / "measurements.sqlite"
MAX_ENTRIES = 50_000
"""Entries that are kept, those used last; losses take 9 bytes for each token of their reply."""
BUSY_TIMEOUT_S = 5.0
DIGEST_BYTES = 16
TABLE = """
create table if not exists measurements (
    key blob primary key,
    value blob not null,
    used_at real not null
) strict, without rowid
"""
DELETE_OLDEST = """
delete from measurements where key in
    (select key from measurements order by used_at desc limit -1 offset ?)
"""
MeasureLosses = Callable[[Sequence[TokenizedSample]], list[TokenLosses]]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredReply:
    """A generated reply, as an evaluation needs it."""

    text: str
    tokens: int
    ended: bool


@dataclass(frozen=True)
class MeasurementCache:
    """Measurements by key in a database; without a `file`, nothing is kept."""

    file: Path | None = None

    @classmethod
    def at_home(cls, home: Path) -> "MeasurementCache":
        """Return the cache of a home."""
        return cls(home / CACHE_FILE)

    def losses(self, model: str, samples: Sequence[TokenizedSample]) -> dict[int, TokenLosses]:
        """Return the known losses of samples under a model (`model_key`), by their place."""
        keys = [_loss_key(model, sample) for sample in samples]
        stored = self._read(keys)
        losses = {}
        for place, sample in enumerate(samples):
            with suppress(KeyError, ValueError):
                losses[place] = _unpack_losses(stored[keys[place]], sample.reply_tokens)
        return losses

    def add_losses(
        self, model: str, samples: Sequence[TokenizedSample], losses: Sequence[TokenLosses]
    ) -> None:
        """Store the losses of samples under a model."""
        entries = {}
        for sample, measured in zip(samples, losses, strict=True):
            entries[_loss_key(model, sample)] = _pack_losses(measured)
        self._write(entries)

    def replies(self, keys: Sequence[bytes]) -> dict[bytes, StoredReply]:
        """Return the known replies by key (`reply_key`)."""
        replies = {}
        for key, value in self._read(keys).items():
            with suppress(ValueError, TypeError):
                replies[key] = StoredReply(**json.loads(value))
        return replies

    def add_replies(self, replies: Mapping[bytes, StoredReply]) -> None:
        """Store replies by key."""
        entries = {}
        for key, reply in replies.items():
            entries[key] = json.dumps(vars(reply), ensure_ascii=False).encode()
        self._write(entries)

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the undamaged entries of the keys."""
        undamaged: dict[bytes, bytes] = {}

        def read(database: sqlite3.Connection) -> None:
            for key in dict.fromkeys(keys):
                rows = database.execute("select value from measurements where key = ?", (key,))
                for (entry,) in rows:
                    value = entry[DIGEST_BYTES:]
                    if entry[:DIGEST_BYTES] == _digest(key + value):
                        undamaged[key] = value
            now = time.time()
            used = [(now, key) for key in undamaged]
            database.executemany("update measurements set used_at = ? where key = ?", used)

        if self.file is not None and self.file.is_file():
            _in_transaction(self.file, read)
        return undamaged

    def _write(self, entries: Mapping[bytes, bytes]) -> None:
        now = time.time()
        rows = [(key, _digest(key + value) + value, now) for key, value in entries.items()]

        def write(database: sqlite3.Connection) -> None:
            database.executemany("insert or replace into measurements values (?, ?, ?)", rows)
            database.execute(DELETE_OLDEST, (MAX_ENTRIES,))

        if self.file is not None and rows:
            _in_transaction(self.file, write)


def _in_transaction(file: Path, work: Callable[[sqlite3.Connection], None]) -> None:
    """Do work in the database. A damaged one is deleted, and one that cannot be used is left."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with closing(sqlite3.connect(file, timeout=BUSY_TIMEOUT_S)) as database:
            file.chmod(0o600)
            database.execute("pragma secure_delete = on")
            database.execute(TABLE)
            with database:
                work(database)
    except sqlite3.OperationalError as error:  # locked, or the disk is full
        log.warning("measurements are not kept: %s", error)
    except (sqlite3.DatabaseError, OSError) as error:
        log.warning("the kept measurements cannot be read, and are dropped: %s", error)
        with suppress(OSError):
            file.unlink(missing_ok=True)


NO_CACHE = MeasurementCache()


@dataclass(frozen=True)
class KnownLosses:
    """The cache as the sides of a comparison use it: `models` are their keys (`model_key`)."""

    cache: MeasurementCache = NO_CACHE
    models: Mapping[str, str] = field(default_factory=dict)

    def measure(
        self, side: str, samples: Sequence[TokenizedSample], measure: MeasureLosses
    ) -> list[TokenLosses]:
        """Return the losses of samples under a side, in order; unknown ones are measured and kept."""
        model = self.models.get(side)
        if model is None:
            return measure(samples)
        losses = self.cache.losses(model, samples)
        missing = [place for place in range(len(samples)) if place not in losses]
        if missing:
            chosen = [samples[place] for place in missing]
            measured = measure(chosen)
            self.cache.add_losses(model, chosen, measured)
            losses.update(zip(missing, measured, strict=True))
        return [losses[place] for place in range(len(samples))]


NO_KNOWN_LOSSES = KnownLosses()


def model_key(base_hash: str, weights: str, precision: str) -> str:
    """Name what computes: base model, adapter's weights (SHA-256; empty for none), the precision
    that is asked for, the device, which may compute in another one, and the version of torch, with
    which rounding may change.
    """
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return "\n".join((base_hash, weights, precision, device, version("torch")))


def reply_key(model: str, ids: Sequence[int], **settings: object) -> bytes:
    """Return the key of a reply to a prompt under a model, with all settings that change it."""
    stated = json.dumps(settings, sort_keys=True, default=str)
    return _digest("\n".join(("reply", model, stated, ",".join(map(str, ids)))).encode())


def _loss_key(model: str, sample: TokenizedSample) -> bytes:
    ids = ",".join(map(str, sample.ids))
    mask = "".join("1" if learned else "0" for learned in sample.mask)
    return _digest("\n".join(("losses", model, ids, mask)).encode())


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _pack_losses(losses: TokenLosses) -> bytes:
    return losses.nll.astype("<f8").tobytes() + losses.likeliest.astype(np.uint8).tobytes()


def _unpack_losses(content: bytes, tokens: int) -> TokenLosses:
    """Raises `ValueError` for another length."""
    if len(content) != 9 * tokens:
        raise ValueError(f"{len(content)} bytes for {tokens} tokens")
    nll = np.frombuffer(content[: 8 * tokens], dtype="<f8").astype(np.float64)
    likeliest = np.frombuffer(content[8 * tokens :], dtype=np.uint8).astype(np.bool_)
    return TokenLosses(nll=nll, likeliest=likeliest)
