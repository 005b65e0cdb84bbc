"""What a backup does not know: what was decided, deleted and forgotten after it was made.

The home in whose place it is put knows, as far as it can be read. On another machine nothing does: there a backup is
as it was, but for the tombstones that are in it.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from bot.guild_end import delete_guild, guilds_on_disk
from bot.privacy.consent import Consents
from bot.privacy.gather import recognised, recognised_in
from bot.privacy.tombstones import read_tombstones, reconcile
from bot.store import Store, TakenOver
from personas.consent import CONSENT_FILE, read_consent
from personas.errors import MaterialError
from personas.exports import EXPORTS_FILE
from personas.keys import KEY_FILE, HomeKey, keyed

OLD_KEYS = "old-*.key"


@dataclass(frozen=True)
class Since:
    """What the old home knew. `lost` says why its database could not be asked, `other_key` that its key was another."""

    taken_over: TakenOver
    guilds: int
    tombstones: int
    other_key: bool
    lost: str


def bring_up_to_date(new: Path, store: Store, old: Path, later: Store | None, made_at: float, lost: str = "") -> Since:
    """Let hold in the home `new`, whose open store is `store`, what the home `old` and its store know.

    `made_at` is when the backup was made, in seconds since 1970. Raises `KeyFileError` where the tombstones or a key of
    either home cannot be read: without them somebody who was forgotten would come back.
    """
    taken_over, guilds = TakenOver(), 0
    if later:
        taken_over = store.take_over(later)
        guilds = _end_guilds(new, store, later, made_at)
    other_key = _merge_keys(new, store, old)
    for file in (new / KEY_FILE).parent.glob(OLD_KEYS):
        _bury_anew(new, file, store, later)
    tombstones = reconcile(new, store)
    _merge_exports(new, old)
    _mirror_consent(new, store, old)
    return Since(taken_over, guilds, len(tombstones), other_key, lost)


def _end_guilds(new: Path, store: Store, later: Store, made_at: float) -> int:
    """Delete again the servers that were deleted since."""
    kept = store.guilds.known() | guilds_on_disk(new)
    ended = [(guild_id, at) for guild_id, at in later.guilds.deleted().items() if guild_id in kept and at >= made_at]
    for guild_id, at in ended:
        delete_guild(new, store, guild_id, at)
    return len(ended)


# ---------------------------------------------------------------------------------------------------- tombstones


def _merge_keys(new: Path, store: Store, old: Path) -> bool:
    """Take up the old home's tombstones and keys; gives whether it had another key than the backup.

    Lists of people are made with the backup's, so it is the one that goes on; the other is kept beside it.
    """
    for person, at in read_tombstones(old).items():
        store.people.bury(person, at)
    for file in (old / KEY_FILE).parent.glob(OLD_KEYS):
        _keep_key(new, file, file.name)
    if not (old / KEY_FILE).exists():
        return False
    if not (new / KEY_FILE).exists():  # of a time without keys
        _keep_key(new, old / KEY_FILE, KEY_FILE.name)
    if HomeKey.of(new) == HomeKey.of(old):
        return False
    mark = hashlib.sha256(HomeKey.of(old).secret).hexdigest()[:8]
    _keep_key(new, old / KEY_FILE, f"old-{mark}.key")
    return True


def _bury_anew(new: Path, old_key_file: Path, store: Store, later: Store | None) -> None:
    """Set tombstones under another key up under the home's own, for everybody who can be recognised anywhere."""
    old_key = bytes.fromhex(old_key_file.read_text(encoding="ascii"))
    then, now = HomeKey(old_key).people(), HomeKey.of(new).people()
    buried = store.people.tombstones()
    known: dict[str, str] = {}
    for where in (store, later) if later else (store,):
        ids = [str(user_id) for user_id in where.erasure.user_ids()]
        known |= {keyed(then, user_id): user_id for user_id in ids}
        known |= _as_people(*recognised_in(where.erasure.free_texts(), then, {*buried}))
    files = (path for kind in ("personas", "lore", "earlier") for path in (new / kind).rglob("*") if path.is_file())
    known |= _as_people(*recognised(files, then, {*buried}))
    for one, at in buried.items():
        if one in known:
            store.people.bury(keyed(now, known[one]), at)


def _as_people(ids: dict[str, str], names: dict[str, str]) -> dict[str, str]:
    return ids | {key: f"name:{name}" for key, name in names.items()}


def _keep_key(new: Path, file: Path, name: str) -> None:
    place = (new / KEY_FILE).with_name(name)
    place.parent.mkdir(mode=0o700, exist_ok=True)
    shutil.copyfile(file, place)
    place.chmod(0o600)


# ------------------------------------------------------------------------------------------------ the rest


def _merge_exports(new: Path, old: Path) -> None:
    """What has left either home is listed in the new one."""
    lines: dict[str, None] = {}
    for file in (new / EXPORTS_FILE, old / EXPORTS_FILE):
        if file.exists():
            lines |= dict.fromkeys(file.read_text(encoding="utf-8").splitlines())
    if lines:
        _write(new / EXPORTS_FILE, "".join(f"{line}\n" for line in lines))


def _mirror_consent(new: Path, store: Store, old: Path) -> None:
    """The trainer reads consent from a file, and may do so before a bot has started on the new home."""
    home = old if (old / CONSENT_FILE).exists() else new
    try:
        permission = read_consent(home).permission
    except MaterialError:
        permission = ""  # the bot writes what its settings say when it starts
    Consents(new, store, permission).mirror()


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)
