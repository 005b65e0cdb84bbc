"""Client of Ray Jobs' REST interface (Ray 2.60): submits, finds, lists, stops and deletes jobs of a
cluster.
"""

import asyncio
import json
import shlex
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel, TypeAdapter, ValidationError

from bot.training.backends.trainer_environment import SECRET_NAME_PATTERN
from personas.errors import UnderstudyError

REQUEST_TIMEOUT_S = 10.0
DELETE_DELAY_S = 3.0
"""Ray looks at each job once a second; if the record is gone before it has seen the end, it writes
a failed one.
"""
ALREADY_SUBMITTED_TEXT = "already exists"
UNKNOWN_JOB_TEXT = "does not exist"
INVALID_REQUEST_TEXT = "status code 400"
"""The head forwards requests to an agent, and answers 500 with the agent's error in the text,
whatever it is.
"""
MAX_REASON_CHARS = 300
UNREACHABLE_ADVICE = (
    "Check RAY_ADDRESS (the address of Ray's dashboard), and that the head node runs."
)

Answer = TypeVar("Answer")
RayStatus = Literal["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]


class RayUnreachableError(UnderstudyError):
    """The cluster does not answer, or its head cannot reach its own agent: the same request may
    succeed later.
    """

    can_resume = True


class RayRefusedError(UnderstudyError):
    """The cluster refuses the request, or something else than Ray answers: repeating it does not
    help.
    """

    can_resume = True


class RayVersion(BaseModel):
    """A cluster's versions: `version` is that of the interface."""

    version: str
    ray_version: str


def last_line(text: str) -> str:
    """Return the last line with a word in it: what Ray says of errors are tracebacks and logs."""
    lines = [line.strip() for line in text.splitlines() if any(map(str.isalnum, line))]
    if lines:
        return lines[-1][:MAX_REASON_CHARS]
    return "no reason is given"


def _describe_failure(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came within {REQUEST_TIMEOUT_S:.0f} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or str(error.os_error)
    return str(error) or type(error).__name__


class RayJob(BaseModel):
    """A job as Ray describes it. `submission_id` is None for jobs that were not submitted over
    REST.
    """

    submission_id: str | None
    status: RayStatus
    message: str | None = None
    error_type: str | None = None
    driver_exit_code: int | None = None

    @property
    def has_ended(self) -> bool:
        """Tell whether the job's status can no longer change."""
        return self.status not in ("PENDING", "RUNNING")

    @property
    def reason(self) -> str:
        """The last line of Ray's message, except where its memory monitor explains itself at
        length.
        """
        message = self.message or ""
        if "out of memory" in message:
            return "its node ran out of memory"
        return last_line(message)


@dataclass(frozen=True)
class WorkerResources:
    """Resources that a run reserves on its worker, and the trainer's options that follow."""

    threads: int | None = None
    gpus: int = 0

    @property
    def cpus(self) -> int:
        """CPUs to reserve; one at least, because jobs without resources run on the head node."""
        return self.threads or 1

    @property
    def text(self) -> str:
        """Describe them for people."""
        return (
            f"{self.cpus} CPU{'s' * (self.cpus > 1)}"
            + f" and {self.gpus} GPU{'s' * (self.gpus > 1)}" * bool(self.gpus)
        )

    @property
    def launcher(self) -> tuple[str, ...]:
        """The start of the trainer's command line: one process for each GPU."""
        each = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.gpus))
        return ("python", *(each if self.gpus > 1 else ()), "-m", "trainer")

    @property
    def options(self) -> tuple[str, ...]:
        return ("--threads", str(self.threads)) if self.threads else ()


def worker_command(command: Iterable[str], log_file: Path, kept_secrets: Collection[str]) -> str:
    """Build the shell command of a job: it drops the secrets that the worker's node has in its
    environment.

    `kept_secrets` stay, where the node has them; none is ever sent to the cluster.
    """
    names = r"env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p'"
    dropped = (
        f"grep -iE {shlex.quote(SECRET_NAME_PATTERN.pattern)} | grep -vxE "
        f"{shlex.quote('|'.join(kept_secrets))}"
    )
    run = f"exec env $({names} | {dropped} | sed 's/^/-u /') {shlex.join(command)}"
    return f"{run} 2>>{shlex.quote(str(log_file))}"


RAY_JOBS = TypeAdapter(list[RayJob])


class RayJobsClient:
    """Jobs of one cluster. All methods raise `RayUnreachableError` and `RayRefusedError`."""

    def __init__(self, address: str, token: str = "") -> None:
        """`address` is that of Ray's dashboard, such as `http://head:8265`; `token` that of its
        authentication.
        """
        self.address = address.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def version(self) -> RayVersion:
        """Return the versions of Ray and of its interface."""
        return self._parse(TypeAdapter(RayVersion), await self._require("GET", "/api/version"))

    async def submit(
        self,
        submission_id: str,
        entrypoint: str,
        *,
        cpus: int,
        gpus: int,
        environ: dict[str, str],
        about: str,
    ) -> None:
        """Submit a shell command under an id; does nothing if a job with this id was submitted
        before.

        `environ` is stored in the cluster, and shown there: no secrets. Without `cpus` or `gpus`
        the command would run on the head node.
        """
        body = {
            "submission_id": submission_id,
            "entrypoint": entrypoint,
            "entrypoint_num_cpus": cpus,
            "entrypoint_num_gpus": gpus,
            "runtime_env": {"env_vars": environ},
            "metadata": {"job_name": about},
        }
        await self._require("POST", "/api/jobs/", body)

    async def get(self, submission_id: str) -> RayJob | None:
        """Return a job; None if this cluster knows no such job, as after the loss of its head
        node.
        """
        text = await self._request("GET", f"/api/jobs/{quote(submission_id)}")
        if text is None:
            return None
        return self._parse(TypeAdapter(RayJob), text)

    async def list(self, prefix: str) -> list[RayJob]:
        """List the submitted jobs whose id starts with `prefix`."""
        jobs = self._parse(RAY_JOBS, await self._require("GET", "/api/jobs/"))
        return [job for job in jobs if job.submission_id and job.submission_id.startswith(prefix)]

    async def stop(self, submission_id: str) -> None:
        """Ask a job to stop: SIGTERM, later SIGKILL. Returns at once; an unknown or ended job is
        left alone.
        """
        await self._request("POST", f"/api/jobs/{quote(submission_id)}/stop")

    async def delete(self, submission_id: str) -> None:
        """Delete Ray's record of an ended job, after `DELETE_DELAY_S`; an unknown one is left
        alone.
        """
        await asyncio.sleep(DELETE_DELAY_S)
        await self._request("DELETE", f"/api/jobs/{quote(submission_id)}")

    async def _require(self, method: str, path: str, body: dict[str, Any] | None = None) -> str:
        text = await self._request(method, path, body)
        if text is None:
            raise RayRefusedError(f"{self.address} does not know {path}.", UNREACHABLE_ADVICE)
        return text

    async def _request(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> str | None:
        """Return the answer's text; None for an unknown job, empty for one that was submitted
        before.
        """
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        try:
            async with aiohttp.request(
                method,
                self.address + path,
                json=body,
                headers=self._headers,
                timeout=timeout,
                # A redirect could lead to this machine or its network.
                allow_redirects=False,
            ) as answer:
                status = answer.status
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            reason = _describe_failure(error)
            raise RayUnreachableError(
                f"Ray at {self.address} does not answer: {reason}.", UNREACHABLE_ADVICE
            ) from None
        if status == 200:
            return text
        if status == 404 and UNKNOWN_JOB_TEXT in text:
            return None
        # The response to an earlier attempt at the same request was lost.
        if ALREADY_SUBMITTED_TEXT in text:
            return ""
        raise self._error(status, text)

    def _error(self, status: int, text: str) -> UnderstudyError:
        if status in (401, 403):
            return RayRefusedError(
                f"Ray at {self.address} refuses the bot ({status}).",
                "Set RAY_AUTH_TOKEN to the cluster's token.",
            )
        reason = last_line(text).removesuffix(".")
        if status >= 500 and INVALID_REQUEST_TEXT not in text:
            return RayUnreachableError(
                f"Ray at {self.address} cannot answer ({status}): {reason}.", UNREACHABLE_ADVICE
            )
        return RayRefusedError(
            f"Ray at {self.address} refuses the request ({status}): {reason}.", UNREACHABLE_ADVICE
        )

    def _parse(self, adapter: TypeAdapter[Answer], text: str) -> Answer:
        try:
            return adapter.validate_python(json.loads(text))
        except (ValueError, ValidationError):
            raise RayRefusedError(
                f"{self.address} does not answer as Ray 2.60 does: {text[:80]!r}.",
                UNREACHABLE_ADVICE,
            ) from None
