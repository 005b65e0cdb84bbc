"""Fine-tunes a model at OpenAI on a built data set: cost estimate, upload, job, events,
cancellation.

The API is described at https://platform.openai.com/docs/api-reference/fine-tuning. Other servers
with the same API are reached by `OPENAI_BASE_URL`.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
from yarl import URL

from personas.errors import RequestError, UnderstudyError
from personas.home.built_dataset import EVAL_FILE, TRAIN_FILE, format_right_counts, is_built_dataset
from personas.home.rights import is_published
from trainer.dataset.layout import read_samples

KEY_VARIABLE = "OPENAI_API_KEY"
BASE_URL_VARIABLE = "OPENAI_BASE_URL"
DEFAULT_BASE_URL = "https://api.openai.com/v1"
PRICE_DATE = "September 2025"
TRAINING_PRICES = {
    "gpt-4.1": 25.0, "gpt-4.1-mini": 5.0, "gpt-4.1-nano": 1.5, "gpt-4o": 25.0, "gpt-4o-mini": 3.0, "gpt-3.5-turbo": 8.0,
}  # fmt: skip
"""US dollars per million training tokens and epoch, as OpenAI listed them at `PRICE_DATE`."""
MIN_TRAINING_SAMPLES = 10  # OpenAI refuses fewer
CHARS_PER_TOKEN = 4
MAX_ATTEMPTS = 6
MAX_DELAY_S = 60.0
POLL_INTERVAL_S = 5.0
EVENTS_PER_PAGE = 100
ENDED_STATES = ("succeeded", "failed", "cancelled")
Json = dict[str, Any]


# ------------------------------------------------------------------------------------- what is sent


@dataclass
class UploadFile:
    """Lines to upload, with their tokens; `left_out` counts samples by a right that does not allow
    sending them.
    """

    lines: list[bytes] = field(default_factory=list)
    tokens: int = 0
    rights: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Submission:
    """A job to create. `price` is in US dollars per million tokens and epoch."""

    model: str
    epochs: int
    price: float
    training: UploadFile
    validation: UploadFile

    @property
    def cost(self) -> float:
        """The estimate in US dollars: OpenAI charges training tokens times epochs, and not the
        validation file.
        """
        return self.training.tokens * self.epochs * self.price / 1e6


def read_submission(folder: Path, model: str, epochs: int, price: float | None) -> Submission:
    """Read what a job would send. Raises `MaterialError`, and `RequestError` for few samples or an
    unknown price.
    """
    if not is_built_dataset(folder):
        raise RequestError(
            f"{folder} contains no data set.", "Name a folder that `dataset build` made."
        )
    training = _read_upload(folder / TRAIN_FILE)
    validation = UploadFile()
    if (folder / EVAL_FILE).is_file() and (folder / EVAL_FILE).stat().st_size:
        validation = _read_upload(folder / EVAL_FILE)
    if len(training.lines) < MIN_TRAINING_SAMPLES:
        left_out = ""
        if training.left_out:
            left_out = f" ({format_right_counts(training.left_out)} are left out)"
        raise RequestError(
            f"{len(training.lines)} training samples may be sent{left_out}; OpenAI needs "
            f"{MIN_TRAINING_SAMPLES}.",
            "Only own-writing and licensed:<name> may leave this machine (docs/exports.md).",
        )
    if price is None:
        price = _listed_price(model)
    if price is None:
        known = ", ".join(TRAINING_PRICES)
        raise RequestError(
            f"The price of training {model} is unknown here (known: {known}).",
            "Give it with --price.",
        )
    return Submission(model, epochs, price, training=training, validation=validation)


def _read_upload(file: Path) -> UploadFile:
    upload = UploadFile()
    for sample in read_samples(file):
        right = str(sample.get("right") or "unknown")
        if not is_published(right):
            upload.left_out[right] += 1
            continue
        upload.rights[right] += 1
        text = json.dumps({"messages": sample["messages"]}, ensure_ascii=False)
        upload.tokens += int(sample.get("tokens") or len(text) // CHARS_PER_TOKEN)
        upload.lines.append(text.encode() + b"\n")
    return upload


def _listed_price(model: str) -> float | None:
    """Return the listed price of the longest name that the model's begins with, also of one that is
    tuned further.
    """
    name = model.removeprefix("ft:").partition(":")[0]
    fitting = []
    for known in TRAINING_PRICES:
        # With a date, such as gpt-4o-2024-08-06; gpt-4o-mini is another model than gpt-4o.
        if name == known or name.startswith(f"{known}-20"):
            fitting.append(known)
    return TRAINING_PRICES[max(fitting, key=len)] if fitting else None


def describe_submission(submission: Submission, base_url: str, *, is_listed: bool) -> list[str]:
    """Describe what leaves the machine, and the estimated cost."""
    training = submission.training
    validation = submission.validation
    size = sum(map(len, (*training.lines, *validation.lines)))
    left_out = training.left_out + validation.left_out
    lines = [
        f"to {base_url}: {len(training.lines):,} samples to train, {len(validation.lines):,} to "
        f"validate, {size:,} bytes",
        "  each with its system message (card and lore), the messages before the reply, and the "
        "reply; people appear under the pseudonyms of the data set",
        f"  by right: {format_right_counts(training.rights + validation.rights)}",
    ]
    if left_out:
        counts = format_right_counts(left_out)
        lines.append(f"  left out: {counts}, which may not leave this machine")
    source = f"OpenAI's price of {PRICE_DATE}; --price gives today's" if is_listed else "--price"
    lines += [
        f"cost: about ${submission.cost:,.2f} = {training.tokens:,} tokens × {submission.epochs} "
        f"epochs × ${submission.price:g} per million ({source})",
        "  tokens are counted as by the data set's base model; OpenAI counts its own, and its bill "
        "decides",
    ]
    return lines


# ------------------------------------------------------------------------------------------ the API


def api_base_url(environ: Mapping[str, str]) -> str:
    """Return the API's address without a slash at its end. Raises `RequestError` if a key would
    travel in clear.
    """
    text = (environ.get(BASE_URL_VARIABLE) or DEFAULT_BASE_URL).rstrip("/")
    url = URL(text)
    is_loopback = url.host in ("127.0.0.1", "localhost", "::1")
    if url.scheme == "https" or (url.scheme == "http" and is_loopback):
        return text
    raise RequestError(
        f"{BASE_URL_VARIABLE} is {text!r}.", "Use an address that begins with https://."
    )


class OpenAIClient:
    """A client of the files and fine-tuning APIs, which repeats requests that may succeed later."""

    def __init__(
        self, environ: Mapping[str, str], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        """Read key and address from the environment. Raises `RequestError` without a key."""
        self.base_url = api_base_url(environ)
        self._key = environ.get(KEY_VARIABLE, "").strip()
        self._sleep = sleep
        if not self._key:
            raise RequestError(
                f"There is no {KEY_VARIABLE} in the environment.",
                "Set it to a key of your project.",
            )

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=600, sock_connect=30)
        headers = {"Authorization": f"Bearer {self._key}"}
        self._session = aiohttp.ClientSession(headers=headers, timeout=timeout, trust_env=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def upload(self, name: str, content: UploadFile) -> str:
        """Upload a file for fine-tuning and return its id. Raises `UnderstudyError`."""

        # Anew for each attempt: a form can be sent once.
        def form() -> Json:
            data = aiohttp.FormData({"purpose": "fine-tune"})
            data.add_field(
                "file", b"".join(content.lines), filename=name, content_type="application/jsonl"
            )
            return {"data": data}

        return _text(await self._request("POST", "/files", form), "id")

    async def create_job(self, submission: Submission, files: Sequence[str], suffix: str) -> Json:
        """Create the job of one or two uploaded files. A job that exists after a failed answer is
        not created twice.
        """
        training, validation = (*files, "")[:2]
        supervised = {"hyperparameters": {"n_epochs": submission.epochs}}
        body: Json = {"model": submission.model, "training_file": training}
        if validation:
            body["validation_file"] = validation
        if suffix:
            body["suffix"] = suffix
        body["method"] = {"type": "supervised", "supervised": supervised}

        async def existing() -> Json | None:
            latest: Json = {"params": {"limit": 20}}
            jobs = await self._request("GET", "/fine_tuning/jobs", lambda: latest)
            for job in _rows(jobs):
                # The file was uploaded for this job alone.
                if job.get("training_file") == training:
                    return job
            return None

        return await self._request("POST", "/fine_tuning/jobs", lambda: {"json": body}, existing)

    async def job(self, job_id: str) -> Json:
        """Return a job."""
        return await self._request("GET", f"/fine_tuning/jobs/{job_id}")

    async def cancel(self, job_id: str) -> Json:
        """Cancel a job and return it."""
        return await self._request("POST", f"/fine_tuning/jobs/{job_id}/cancel")

    async def delete_file(self, file_id: str) -> None:
        """Delete an uploaded file at OpenAI."""
        await self._request("DELETE", f"/files/{file_id}")

    async def new_events(self, job_id: str, seen: set[str]) -> list[Json]:
        """Return the events that are not in `seen`, oldest first, and add them. Pages come newest
        first.
        """
        events: list[Json] = []
        options: Json = {"params": {"limit": EVENTS_PER_PAGE}}
        while True:
            page = await self._request("GET", f"/fine_tuning/jobs/{job_id}/events", options.copy)
            rows = _rows(page)
            fresh = [row for row in rows if row.get("id") not in seen]
            events += fresh
            seen.update(_text(row, "id") for row in fresh)
            # A known event ends it: all later pages are older.
            if not page.get("has_more") or len(fresh) < len(rows) or not rows:
                return events[::-1]
            options = {"params": {"limit": EVENTS_PER_PAGE, "after": _text(rows[-1], "id")}}

    async def follow(
        self, job_id: str, report: Callable[[str], None], interval_s: float = POLL_INTERVAL_S
    ) -> Json:
        """Report a job's events until it has ended; return the job."""
        seen: set[str] = set()
        while True:
            job = await self.job(job_id)
            for event in await self.new_events(job_id, seen):
                report(str(event.get("message", "")))
            if job.get("status") in ENDED_STATES:
                return job
            await self._sleep(interval_s)

    async def _request(
        self,
        method: str,
        path: str,
        options: Callable[[], Json] = dict,
        existing: Callable[[], Awaitable[Json | None]] | None = None,
    ) -> Json:
        """Send a request, again after 429, 5xx and network errors. Raises `UnderstudyError`.

        `existing` finds the result of a request that may have been carried out although its answer
        was an error.
        """
        fault = ""
        for attempt in range(MAX_ATTEMPTS):
            delay_s = min(2.0**attempt, MAX_DELAY_S)
            try:
                async with self._session.request(
                    method, self.base_url + path, **options()
                ) as response:
                    answer = await _read_json(response)
                    if response.status < 300:
                        return answer
                    fault = self._refusal(response.status, answer)
                    delay_s = _retry_after(response.headers.get("Retry-After"), delay_s)
            except (aiohttp.ClientError, TimeoutError) as error:
                fault = f"{self.base_url} cannot be reached: {str(error) or type(error).__name__}."
            result = await existing() if existing else None
            if result:
                return result
            if attempt + 1 < MAX_ATTEMPTS:
                await self._sleep(delay_s)
        raise UnderstudyError(fault, f"It was tried {MAX_ATTEMPTS} times. Try again later.")

    def _refusal(self, status: int, answer: Json) -> str:
        """Describe a refusal that may pass. Raises `UnderstudyError` for one that does not."""
        error = answer.get("error")
        if not isinstance(error, dict):
            error = {}
        # OpenAI repeats a wrong key in its message.
        said = str(error.get("message") or "no reason given").replace(self._key, "…").rstrip(".")
        fault = f"OpenAI answers {status}: {said}."
        if status == 401:
            raise UnderstudyError(fault, f"Check {KEY_VARIABLE}.")
        if error.get("code") == "insufficient_quota":
            raise UnderstudyError(fault, "Check the plan and billing of the key's project.")
        if status in (408, 409, 429) or status >= 500:
            return fault
        raise UnderstudyError(fault, "Correct the request.")


async def _read_json(response: aiohttp.ClientResponse) -> Json:
    """Read an answer; an empty one if it is no JSON object, as from a proxy."""
    try:
        answer = json.loads(await response.read())
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        return answer
    if response.status < 300:
        raise UnderstudyError(
            f"{response.url} does not answer as OpenAI does.", f"Check {BASE_URL_VARIABLE}."
        )
    return {}


def _retry_after(header: str | None, default_s: float) -> float:
    try:
        return min(max(float(header or default_s), 0.0), MAX_DELAY_S)
    except ValueError:  # a date
        return default_s


def _text(answer: Json, name: str) -> str:
    value = answer.get(name)
    if isinstance(value, str) and value:
        return value
    raise UnderstudyError(
        f"An answer lacks {name!r}.", f"Check {BASE_URL_VARIABLE}: OpenAI's API has it."
    )


def _rows(page: Json) -> list[Json]:
    rows = page.get("data")
    if not isinstance(rows, list):
        return []
    return [row for row in rows if isinstance(row, dict)]


# ---------------------------------------------------------------------------------------- the steps


async def submit(
    client: OpenAIClient, submission: Submission, suffix: str, report: Callable[[str], None]
) -> Json:
    """Upload the files and create the job; return it. If that fails, the uploaded files are deleted
    again.
    """
    uploaded: list[str] = []
    files = {"train.jsonl": submission.training, "validation.jsonl": submission.validation}
    try:
        for name, content in files.items():
            if content.lines:
                uploaded.append(await client.upload(name, content))
                report(f"uploaded {name}: {uploaded[-1]}")
        return await client.create_job(submission, uploaded, suffix)
    except BaseException:  # also Ctrl-C: nothing stays there that no job uses
        await delete_files(client, uploaded, report)
        raise


async def delete_files(
    client: OpenAIClient, file_ids: Sequence[str], report: Callable[[str], None]
) -> None:
    """Delete files at OpenAI; report each that could not be."""
    for file_id in file_ids:
        try:
            await client.delete_file(file_id)
            report(f"deleted {file_id} at OpenAI")
        except UnderstudyError as error:
            report(f"{file_id} is still at OpenAI: {error}")


def job_files(job: Json) -> list[str]:
    """List the files of a job: those it was given, and its results."""
    named = [job.get("training_file"), job.get("validation_file")]
    results = job.get("result_files")
    if isinstance(results, list):
        named += results
    return [str(file) for file in named if file]


def describe_result(job: Json) -> str:
    """Describe an ended job."""
    if job.get("status") == "succeeded":
        return (
            f"{job.get('fine_tuned_model')}: trained on {int(job.get('trained_tokens') or 0):,} "
            "tokens"
        )
    if job.get("status") == "cancelled":
        return f"{job.get('id')} has been cancelled"
    error = job.get("error")
    why = error.get("message") if isinstance(error, dict) else ""
    return f"{job.get('id')} has failed: {why}"
