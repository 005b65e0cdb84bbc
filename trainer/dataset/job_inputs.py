"""Reads a job folder's material: checks kinds, digests and rights, then reads its conversations."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from personas.card.toml_card import read_card
from personas.cli_common import read_setting
from personas.errors import MaterialError, MaterialGoneError, RequestError
from personas.home.column_maps import split_pairs
from personas.home.data_subjects import NO_CONSENT, Consent, read_consent
from personas.home.holdout_index import HOLDOUT_FILE, HoldoutIndex
from personas.home.job_folder import material_digest
from personas.home.preferences import PreferenceRecord, read_preferences
from personas.home.pseudonyms import JobKeys
from personas.home.rights import CLAIMS, decide_right
from personas.home.written_replies import read_written, written_file
from personas.lore.index import LoreIndex
from personas.lore.lore_folder import job_owners, read_lore
from personas.lore.passages import Passage
from personas.outside_names import UnsafeNameError, path_inside
from personas.schemas.base import DISCORD_API
from personas.schemas.chat import Persona
from personas.schemas.training import JobSpec, Material
from trainer.dataset.data_mixture import (
    count_replies,
    mixes_general,
    select_lore_pairs,
    split_general,
)
from trainer.dataset.synthetic.card_replies import sincere_replies
from trainer.dataset.synthetic.lore_extraction import extract_lore
from trainer.dataset.synthetic.measuring_questions import reserved_questions
from trainer.dataset.synthetic.question_bank import IN_EARNEST, Question, draw_questions
from trainer.dataset.synthetic.speaking_style import measure_style
from trainer.dataset.written_replies import stand_ins, written_conversations, written_count
from trainer.schemas import Recipe
from trainer.sources.conversation import (
    Conversation,
    RejectedRecord,
    persona_speaks,
    replace_assistant,
)
from trainer.sources.conversation_builder import RawDialogue, build_conversation
from trainer.sources.log_pool import LogPool
from trainer.sources.reader import read_usable
from trainer.sources.source_format import ReadOptions

ALLOWED_KINDS = {
    "persona": (
        *("card", "log", "dataset", "lore", "messages", "general", "general-training"),
        *("adapter", "pairs", "heldout"),
    ),
    "dialogue": ("messages", "dataset", "general", "adapter"),
    "preference": ("card", "log", "dataset", "lore", "general", "adapter", "preferences"),
}
SOURCE_KINDS = {"persona": "log", "dialogue": "messages", "preference": "log"}
KINDS_WITHOUT_SPEAKERS = ("card", "lore", "preferences")
BUILT_KINDS = ("dataset", "adapter")
"""Built earlier by this program, from what was allowed then."""
EXTRACTED_SOURCE = "lore, extracted"
GENERAL_TRAINING_SOURCE = "general-training"
"""Source of the general dialogue that ships to be trained on."""
OVER_PAIRS_SHARE = "over the share of lore pairs"
QUESTIONS_PER_REPLY = 3
"""Questions that are drawn for each reply: not every one is good enough, or may be asked."""
MaterialPaths = Mapping[str, list[tuple[Path, Material]]]


@dataclass(frozen=True)
class JobInputs:
    """A job's checked material, before its conversations are read.

    `built` is the folder of a data set that takes the place of talk, `parent` that of the adapter
    to train further. `consent` is what is allowed today, `held_out` what was held out before.
    `keys` are those of pseudonyms and of lists of people. `paths` are the materials by kind.
    `lore_pairs` is the share of replies to take from lore, `from_card` that of replies which a model
    writes from the card: into the file `written`, which is there once it has. `between` is called
    between two conversations or samples.
    """

    persona: Persona | None = None
    lore: LoreIndex | None = None
    keys: JobKeys = field(default_factory=lambda: JobKeys(b"", b""))
    consent: Consent = NO_CONSENT
    held_out: HoldoutIndex | None = None
    built: Path | None = None
    parent: Path | None = None
    talk_kind: str = "log"
    paths: MaterialPaths = field(default_factory=dict)
    lore_pairs: float = 0.0
    from_card: float = 0.0
    written: Path | None = None
    between: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class JobTalk:
    """A job's conversations before anonymisation.

    `general` measures what training makes a model forget; `to_mix` is general dialogue to train on
    besides, in the order in which it is taken. `rejected` are unusable records. `pairs` counts the
    lore pairs among the conversations, whose sources are `pair_sources`.
    """

    conversations: Sequence[Conversation] = ()
    general: Sequence[Conversation] = ()
    to_mix: Sequence[Conversation] = ()
    rejected: Sequence[RejectedRecord] = ()
    preferences: Sequence[PreferenceRecord] = ()
    pairs: Mapping[str, int] = field(default_factory=dict)
    pair_sources: Sequence[str] = ()


def read_job_inputs(folder: Path, spec: JobSpec) -> JobInputs:
    """Check a job's material and read all of it but its conversations.

    Raises `UnderstudyError` naming the file that cannot be used, and why.
    """
    paths = _material_paths(folder, spec)
    keys = JobKeys.in_folder(folder)
    persona = _find_persona(paths["card"], spec) if spec.request.persona else None
    return JobInputs(
        persona=persona,
        lore=_read_lore_index(paths["lore"], persona) if persona else None,
        keys=keys,
        consent=read_consent(folder),
        held_out=HoldoutIndex.read(folder / HOLDOUT_FILE, keys.people),
        built=paths["dataset"][0][0] if paths["dataset"] else None,
        parent=paths["adapter"][0][0] if paths["adapter"] else None,
        talk_kind=SOURCE_KINDS[spec.request.task_type],
        paths=paths,
        lore_pairs=spec.request.lore_pairs or 0.0,
        from_card=spec.request.from_card or 0.0,
        written=written_file(folder) if spec.request.from_card else None,
    )


def read_job_talk(inputs: JobInputs, recipe: Recipe) -> JobTalk:
    """Read all conversations of a job. Raises `UnderstudyError` naming the file that cannot be
    used, and why.
    """
    paths = inputs.paths
    options = ReadOptions(
        consent=inputs.consent,
        session_gap_s=recipe.session_gap_minutes * 60,
        names_by="`persona_names` in catalogue.toml",
        mapped_by="`map` in catalogue.toml, or on the data set's page of the dashboard",
    )
    rejected: list[RejectedRecord] = []
    own_options = replace(options, persona=inputs.persona)
    conversations = _read_conversations(paths[inputs.talk_kind], own_options, rejected)
    # What is unusable in general dialogue is no record of the data set.
    general = _read_conversations(paths["general"], options, [])
    to_mix: Sequence[Conversation] = ()
    if inputs.persona and (mixes_general(recipe) or paths["messages"]):
        messages = _read_conversations(paths["messages"], options, [])
        if not messages:
            training = replace(options, source=GENERAL_TRAINING_SOURCE)
            messages = _read_conversations(paths["general-training"], training, [])
        general, to_mix = _split_mixture(messages, general, recipe)
    talk = JobTalk(
        conversations,
        general,
        to_mix,
        rejected=rejected,
        preferences=read_job_preferences(inputs),
    )
    if inputs.persona and inputs.lore_pairs:
        return _add_lore_pairs(talk, inputs, inputs.persona, options)
    if inputs.persona and inputs.from_card:
        return _add_written(talk, inputs, inputs.persona, recipe)
    return talk


def questions_to_write(
    inputs: JobInputs, persona: Persona, own: Sequence[Conversation], recipe: Recipe
) -> tuple[int, list[Question]]:
    """Return how many replies to write from a persona's card, and more questions than that, in
    order: not every reply is good enough. `own` are the persona's own conversations.

    Their questions are not asked again, nor those of exchanges that are held out, nor those that
    measure what a version knows of its lore. What is asked in earnest is asked where its reply is
    given: a model that plays a part claims to be human there, or jokes.
    """
    count = written_count(recipe.written_replies, count_replies(own), inputs.from_card)
    options = ReadOptions(persona=persona, consent=inputs.consent)
    held_out = _read_conversations(inputs.paths.get("heldout", []), options, [])
    asked = []
    for conversation in (*own, *held_out):
        for message in conversation.messages:
            if not message.speaker.is_persona:
                asked.append(message.text)
    passages = inputs.lore.passages if inputs.lore else []
    asked += reserved_questions(persona, passages)
    questions = draw_questions(
        persona, passages, count * QUESTIONS_PER_REPLY, seed=recipe.seed, excluded=asked
    )
    given = sincere_replies(persona, says_i=measure_style(persona).says_i)
    return count, [
        question
        for question in questions
        if question.kind not in IN_EARNEST or question.text in given
    ]


def _add_written(talk: JobTalk, inputs: JobInputs, persona: Persona, recipe: Recipe) -> JobTalk:
    """Add the replies that a model has written from the card; before it has, stand-ins of their
    likely length.
    """
    own = talk.conversations
    if not any(persona_speaks(persona, conversation) for conversation in own):
        own = [replace_assistant(persona, conversation) for conversation in own]
    if inputs.written and inputs.written.exists():
        replies = read_written(inputs.written)
    else:
        count, questions = questions_to_write(inputs, persona, own, recipe)
        replies = stand_ins(persona, questions[:count], seed=recipe.seed)
    card = inputs.paths["card"][0][1]
    written = written_conversations(persona, replies, right=card.right, arrived=card.arrived)
    return replace(talk, conversations=[*own, *written])


def _add_lore_pairs(
    talk: JobTalk, inputs: JobInputs, persona: Persona, options: ReadOptions
) -> JobTalk:
    """Add pairs that are extracted from the lore and synthesised ones, up to their share of the
    replies.
    """
    rejected: list[RejectedRecord] = []
    own_options = replace(options, persona=persona)
    synthesised = _read_conversations(inputs.paths["pairs"], own_options, rejected)
    extracted = _extract_pairs(inputs, persona, replace(options, source=EXTRACTED_SOURCE))
    pairs = [replace_assistant(persona, pair) for pair in (*extracted, *synthesised)]
    if not pairs:
        raise MaterialError(
            f"No pairs can be made from the lore of {persona.name}.",
            "Add lore, or synthesise some.",
        )
    own = talk.conversations
    if not own and len({(pair.messages[0].row, pair.messages[0].text) for pair in pairs}) < 2:
        raise MaterialError(
            f"The lore of {persona.name} has only one passage; training and evaluation need one "
            "each.",
            "Add at least one more, under a heading of its own.",
        )
    if not any(persona_speaks(persona, conversation) for conversation in own):
        # Beside pairs in which it speaks, an assistant would no longer count as the persona.
        own = [replace_assistant(persona, conversation) for conversation in own]
    used, surplus = select_lore_pairs(pairs, own, inputs.lore_pairs)
    for pair in surplus:
        rejected.append(RejectedRecord(pair.messages[0].row, OVER_PAIRS_SHARE, pair.rows))
    counts = {"extracted": len(extracted), "synthesised": len(synthesised), "used": len(used)}
    return replace(
        talk,
        conversations=[*own, *used],
        rejected=[*talk.rejected, *rejected],
        pairs={f"lore_pairs_{name}": count for name, count in counts.items()},
        pair_sources=sorted({pair.source for pair in pairs}),
    )


def _extract_pairs(inputs: JobInputs, persona: Persona, options: ReadOptions) -> list[Conversation]:
    """Extract question-answer pairs from the persona's own lore, under the right to it."""
    if inputs.lore is None:
        return []
    passages = [passage for passage in inputs.lore.passages if passage.owner == persona.id]
    if not passages:
        return []
    material = inputs.paths["lore"][0][1]
    options = replace(options, right=material.right, arrived=material.arrived)
    conversations = []
    for pair in extract_lore(persona, passages).pairs:
        turns = [(message["role"], message["content"]) for message in pair.messages]
        row = f"{pair.passages[0].source} {pair.passages[0].heading}"
        item = build_conversation(RawDialogue.of(turns), row, options)
        if isinstance(item, Conversation):
            conversations.append(item)
    return conversations


def read_job_preferences(inputs: JobInputs) -> list[PreferenceRecord]:
    """Read a job's preferences unchanged. Raises `MaterialError` if training on them is not
    allowed.
    """
    preferences: list[PreferenceRecord] = []
    for path, _ in inputs.paths.get("preferences", ()):
        preferences += read_preferences(path)
    if any(preference.right == DISCORD_API for preference in preferences):
        raise MaterialError(
            "A preference came through Discord's API, and nothing says whose words it holds.",
            "Learn from replies that were taught through a form, and from votes on the operator's "
            "prompts.",
        )
    return preferences


def _split_mixture(
    messages: list[Conversation], general: list[Conversation], recipe: Recipe
) -> tuple[list[Conversation], list[Conversation]]:
    """Split general dialogue into one part that measures forgetting and one to train on."""
    if not mixes_general(recipe):
        raise RequestError(
            "There is general dialogue to train on, and the recipe trains on none.",
            "Take the recipe mixed-80-20 or two-stage, or set general_share.",
        )
    return split_general(messages, general)


def _material_paths(folder: Path, spec: JobSpec) -> MaterialPaths:
    """Return the paths of the materials by kind. Raises `MaterialError` for too many or too few."""
    task = spec.request.task_type
    foreign = sorted({material.kind for material in spec.materials} - {*ALLOWED_KINDS[task]})
    if foreign:
        raise MaterialError(
            f"A {task} job does not use material of the kind {', '.join(foreign)}.", "Leave it out."
        )
    consent = read_consent(folder)
    paths: dict[str, list[tuple[Path, Material]]] = {}
    for allowed in ALLOWED_KINDS.values():
        for kind in allowed:
            paths[kind] = []
    for material in sorted(spec.materials, key=lambda material: material.kind):
        path = _check_material(folder / "material", material, consent)
        paths[material.kind].append((path, material))
    source = SOURCE_KINDS[task]
    if not paths["dataset"]:
        is_complete = 1 in (spec.request.lore_pairs, spec.request.from_card)
        _require_kind(bool(paths[source]) or is_complete, source, task)
    elif spec.request.lore_pairs or spec.request.from_card:
        more = "lore pairs" if spec.request.lore_pairs else "replies from the card"
        raise MaterialError(
            f"The job has a data set, and takes {more} too.", "Leave one of them out."
        )
    elif paths[source] or len(paths["dataset"]) > 1:
        raise MaterialError(
            "The job has a data set and other conversations too.", "Leave one of them out."
        )
    if len(paths["adapter"]) > 1:
        raise MaterialError("The job has two adapters to start from.", "Leave one out.")
    if task == "preference":
        _require_kind(bool(paths["adapter"]), "adapter", task)
        _require_kind(bool(paths["preferences"]), "preferences", task)
    _require_kind(bool(paths["general"]), "general", task)
    return paths


def _require_kind(is_there: bool, kind: str, task: str) -> None:
    if not is_there:
        raise MaterialError(
            f"The job has no material of the kind {kind!r}.", f"A {task} job needs some."
        )


def _check_material(root: Path, material: Material, consent: Consent) -> Path:
    """Return the path of a material that may be trained on and has the digest of the request."""
    try:
        path = path_inside(root, material.path)
    except UnsafeNameError as error:
        what = f"The job names a material whose name {error}."
        raise MaterialError(what, "Copy the material into the job's folder.") from None
    stated = material.right if material.stated_by else ""
    if material.kind in BUILT_KINDS:
        decide_right(material.path, stated=stated, consent=consent).require()
    elif material.kind in KINDS_WITHOUT_SPEAKERS:
        if material.right == DISCORD_API:
            raise MaterialError(
                f"{material.path} came through Discord's API, and nothing in it says who wrote "
                "what, so nobody can have opted in.",
                "Use your own writing, or text that its authors gave for this through a form.",
            )
        decide_right(material.path, stated=stated, consent=NO_CONSENT).require()
    try:
        digest = material_digest(path)
    except OSError as error:
        advice = "Put it back and run the same job again, or create the job anew."
        raise MaterialGoneError(
            f"{material.path} cannot be read: {error.strerror}.", advice
        ) from None
    if digest != material.sha256:
        raise MaterialError(
            f"{material.path} has changed since the request was made.", "Create the job anew."
        )
    return path


def _find_persona(cards: list[tuple[Path, Material]], spec: JobSpec) -> Persona:
    personas = [read_card(path) for path, _ in cards if path.suffix == ".toml"]
    wanted = spec.request.persona
    for persona in personas:
        if persona.id == wanted:
            return persona
    held = ", ".join(persona.id for persona in personas) or "none"
    raise MaterialError(
        f"The job has no card of {wanted!r} (cards: {held}).", "Add the card to the material."
    )


def _read_conversations(
    files: list[tuple[Path, Material]], options: ReadOptions, rejected: list[RejectedRecord]
) -> list[Conversation]:
    """Read the conversations of files in any format; `rejected` receives unusable records.

    Raises `MaterialError` if training on a file is not allowed, it yields nothing, or the persona
    never speaks in it.
    """
    conversations: list[Conversation] = []
    logs = LogPool()
    sources = []
    for path, material in files:
        # A format that implies a right takes precedence over a claim, but not over a signed
        # statement.
        is_claimed = material.stated_by in CLAIMS
        signed = material.right if material.stated_by and not is_claimed else ""
        claimed = material.right if is_claimed else ""
        reading = replace(
            options,
            right=signed,
            claimed=claimed,
            arrived=material.arrived,
            persona_names=material.persona_names,
            mapping=split_pairs(material.mapping),
        )
        sources.append(read_usable(path, reading, material.format, logs))
    for item in itertools.chain.from_iterable(sources):
        if isinstance(item, Conversation):
            conversations.append(item)
        else:
            rejected.append(item)
    return conversations


def _read_lore_index(folders: list[tuple[Path, Material]], persona: Persona) -> LoreIndex | None:
    passages: list[Passage] = []
    for path, _ in folders:
        passages += read_lore(path, job_owners(path, persona))
    return LoreIndex(passages, encoder=read_setting("LORE_ENCODER")) if passages else None
