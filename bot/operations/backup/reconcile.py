"""Brings a restored backup up to date with decisions, deletions and consent recorded after it was
made.
"""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from bot.privacy.alias_search import identify_in_files, identify_in_texts
from bot.privacy.consent_files import ConsentMirror, read_tombstones, reconcile_tombstones
from bot.privacy.guild_deletion import delete_guild, find_guilds_on_disk
from bot.store import BackupMergeCounts, Store
from personas.errors import MaterialError
from personas.home.data_subjects import CONSENT_FILE, read_consent
from personas.home.external_files import EXPORTS_FILE
from personas.home.pseudonyms import KEY_FILE, HomeKey, keyed_person

OLD_KEY_GLOB = "old-*.key"


@dataclass(frozen=True)
class ReconcileResult:
    """Counts of merged records; `lost`: why the old database was unreadable; `other_key`: its key
    differed.
    """

    taken_over: BackupMergeCounts
    guilds: int
    tombstones: int
    other_key: bool
    lost: str


def reconcile_home(
    new: Path, store: Store, old: Path, later: Store | None, made_at: float, lost: str = ""
) -> ReconcileResult:
    """Merge into the home `new`, whose open store is `store`, what the home `old` and its store
    recorded since.

    `made_at` is when the backup was created, in seconds since 1970. Raises `KeyFileError` where the
    tombstones or a key of either home cannot be read: without them an erased person would come
    back.
    """
    taken_over = BackupMergeCounts()
    guilds = 0
    if later:
        taken_over = store.merge_later_decisions(later)
        guilds = _delete_guilds(new, store, later, made_at)
    other_key = _merge_keys(new, store, old)
    for file in (new / KEY_FILE).parent.glob(OLD_KEY_GLOB):
        _rekey_tombstones(new, file, store, later)
    tombstones = reconcile_tombstones(new, store)
    _merge_exports(new, old)
    _mirror_consent(new, store, old)
    return ReconcileResult(
        taken_over, guilds, tombstones=len(tombstones), other_key=other_key, lost=lost
    )


def _delete_guilds(new: Path, store: Store, later: Store, made_at: float) -> int:
    """Delete the guilds again that were deleted since."""
    known_guilds = store.guilds.known() | find_guilds_on_disk(new)
    count = 0
    for guild_id, at in later.guilds.deleted().items():
        if guild_id in known_guilds and at >= made_at:
            delete_guild(new, store, guild_id, at)
            count += 1
    return count


def _merge_keys(new: Path, store: Store, old: Path) -> bool:
    """Merge the old home's tombstones and keys; True if its key differed. The backup's key stays in
    use.
    """
    for person, at in read_tombstones(old).items():
        store.people.record_erased(person, at)
    for file in (old / KEY_FILE).parent.glob(OLD_KEY_GLOB):
        _keep_key(new, file, file.name)
    if not (old / KEY_FILE).exists():
        return False
    if not (new / KEY_FILE).exists():
        # The backup is from the time before homes had keys.
        _keep_key(new, old / KEY_FILE, KEY_FILE.name)
    if HomeKey.of(new) == HomeKey.of(old):
        return False
    mark = hashlib.sha256(HomeKey.of(old).secret).hexdigest()[:8]
    _keep_key(new, old / KEY_FILE, f"old-{mark}.key")
    return True


def _rekey_tombstones(new: Path, old_key_file: Path, store: Store, later: Store | None) -> None:
    """Convert tombstones under another key to the home's own, for everybody who can be identified
    anywhere.
    """
    old_key = bytes.fromhex(old_key_file.read_text(encoding="ascii"))
    then = HomeKey(old_key).people()
    now = HomeKey.of(new).people()
    buried = store.people.tombstones()
    known: dict[str, str] = {}
    sources = (store, later) if later else (store,)
    for source in sources:
        ids = [str(user_id) for user_id in source.erasure.user_ids()]
        known |= {keyed_person(then, user_id): user_id for user_id in ids}
        known |= _people_keys(*identify_in_texts(source.erasure.free_texts(), then, {*buried}))
    files = []
    for kind in ("personas", "lore", "earlier"):
        files += [path for path in (new / kind).rglob("*") if path.is_file()]
    known |= _people_keys(*identify_in_files(iter(files), then, {*buried}))
    for person, at in buried.items():
        if person in known:
            store.people.record_erased(keyed_person(now, known[person]), at)


def _people_keys(ids: dict[str, str], names: dict[str, str]) -> dict[str, str]:
    return ids | {key: f"name:{name}" for key, name in names.items()}


def _keep_key(new: Path, file: Path, name: str) -> None:
    target = (new / KEY_FILE).with_name(name)
    target.parent.mkdir(mode=0o700, exist_ok=True)
    shutil.copyfile(file, target)
    target.chmod(0o600)


def _merge_exports(new: Path, old: Path) -> None:
    lines: dict[str, None] = {}
    for file in (new / EXPORTS_FILE, old / EXPORTS_FILE):
        if file.exists():
            lines |= dict.fromkeys(file.read_text(encoding="utf-8").splitlines())
    if lines:
        _write(new / EXPORTS_FILE, "".join(f"{line}\n" for line in lines))


def _mirror_consent(new: Path, store: Store, old: Path) -> None:
    """Write `consent.json`, which the trainer may read before a bot has started on the new home."""
    home = old if (old / CONSENT_FILE).exists() else new
    try:
        permission = read_consent(home).permission
    except MaterialError:
        permission = ""  # the bot writes its settings' value when it starts
    ConsentMirror(new, store, permission).mirror()


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)
