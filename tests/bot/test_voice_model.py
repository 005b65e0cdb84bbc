"""The recogniser of voice messages: a real Whisper, made small, in its process, over real Ogg Opus."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from huggingface_hub import constants

from bot.operations.doctor.local_checks import check_voice
from bot.operations.startup_checks import require_startable
from bot.settings import Settings
from bot.transcription import transcriber as transcribers
from bot.transcription.audio import decode_ogg_opus
from bot.transcription.transcriber import Transcriber, TranscriptionError, worker_command
from bot.transcription.voice_model import (
    ModelNotHereError,
    VoiceModelError,
    locate_voice_model,
)
from bot.transcription.worker import REQUEST_HEAD
from tests.bot.conftest import QUAY, on_stage
from tests.bot.test_shown_context import TOBIAS, answered, given
from tests.hub_server import COMMIT, Hub, Repository, reach
from tests.tiny_whisper import (
    SAMPLE_RATE_HZ,
    TEXTS,
    build_tiny_whisper,
    ogg_opus,
    speech,
)

is_installed = importlib.util.find_spec("faster_whisper") is not None
needs_recogniser = pytest.mark.skipif(
    not is_installed, reason="faster-whisper is not installed (the extra voice)"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_tiny_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture
async def transcriber(model):
    made = Transcriber(worker_command(model))
    yield made
    await made.close()


@needs_recogniser
async def test_words_are_recognised_in_the_language_that_is_spoken(transcriber, monkeypatch):
    for language, text in TEXTS.items():
        assert await transcriber.transcribe(ogg_opus(speech(language))) == text
    process = transcriber._loading.result()
    assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 10
    noise = speech("en") * 0.001
    assert await transcriber.transcribe(ogg_opus(noise)) == "", "nobody speaks"
    monkeypatch.setattr(transcribers, "PIECE_S", 2)
    recording = ogg_opus(np.concatenate([speech("en"), speech("de")]))
    heard = await transcriber.transcribe(recording, is_last=True)
    assert heard.split() == [*TEXTS["en"].split(), *TEXTS["de"].split()], "piece by piece"


@needs_recogniser
async def test_a_persona_is_given_the_words_of_a_recording(tmp_path, transcriber):
    async with on_stage(tmp_path, transcriber=transcriber) as stage:
        stage.engine.script = lambda request: ["Aye."]
        recording = ogg_opus(speech("en"))
        await answered(stage, stage.member.voice_message(QUAY, sound=recording, seconds=2.0))
        said = f"{TEXTS['en']}\n[a voice message of 2 s]"
        assert given(stage)[-2] == (TOBIAS, said)


@needs_recogniser
async def test_what_cannot_be_decoded_is_no_end_of_the_process(transcriber):
    recording = ogg_opus(speech("en"))
    flac = ogg_opus(speech("en"), codec="flac")
    damaged = recording[:60] + bytes(len(recording) - 60)
    for data, why in (
        (b"OggS", "cannot be decoded"),
        (flac, "cannot be decoded"),
        (damaged, "has no sound|cannot be decoded"),
        (ogg_opus(speech("en", seconds=0.5), repeat=250), "is longer than 120 s"),
    ):
        with pytest.raises(TranscriptionError, match=why):
            await transcriber.transcribe(data)
    assert await transcriber.transcribe(recording) == TEXTS["en"]


@needs_recogniser
def test_a_recording_is_decoded_to_what_was_recorded():
    samples = decode_ogg_opus(ogg_opus(speech("de", seconds=1.0)))
    assert samples.dtype == "float32" and abs(len(samples) - SAMPLE_RATE_HZ) < 500
    assert 0.1 < abs(samples).max() <= 1


@needs_recogniser
def test_the_process_ends_with_the_pipe_while_it_computes(model):
    recording = ogg_opus(speech("en"), repeat=50)
    with subprocess.Popen(
        worker_command(model), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert b"ready" in process.stdout.readline()
        process.stdin.write(REQUEST_HEAD.pack(len(recording), 0, 120) + recording)
        process.stdin.close()
        assert process.stdout.read() == b""
    assert process.returncode == 0


@needs_recogniser
def test_the_doctor_names_a_model_that_loads(model):
    [check] = check_voice(str(model))
    assert (check.state, check.found) == ("ok", f"voice messages are recognised with {model}")


@needs_recogniser
def test_the_doctor_names_a_model_that_does_not_load_and_one_that_is_not_here(
    tmp_path, model, monkeypatch
):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.bin").write_bytes(b"not a model")
    [check] = check_voice(str(tmp_path))
    assert check.state == "fail" and "cannot be loaded" in check.found
    [check] = check_voice("nobody/no-such-model")
    assert check.state == "warn" and "not on this machine yet" in check.found
    assert "HF_HUB_OFFLINE" in check.remedy


@needs_recogniser
def test_a_model_is_fetched_from_a_hub_once_and_found_without_it(tmp_path, model, monkeypatch):
    files = {file.name: file.read_bytes() for file in model.iterdir()}
    hub = Hub({"Systran/faster-whisper-tiny": Repository({COMMIT: {**files, "README.md": b"#"}})})
    with hub.serve() as address:
        reach(monkeypatch, address, str(tmp_path))
        with pytest.raises(ModelNotHereError):
            locate_voice_model("tiny", fetch=False)
        folder = locate_voice_model("tiny", fetch=True)
    assert (folder / "model.bin").read_bytes() == files["model.bin"]
    assert not (folder / "README.md").exists()
    assert locate_voice_model("tiny", fetch=False) == folder
    assert locate_voice_model("tiny", fetch=True) == folder
    with pytest.raises(VoiceModelError, match="could not be reached"):
        locate_voice_model("base", fetch=True)


def test_names_of_models_that_are_none_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(VoiceModelError, match="no size of Whisper") as refused:
        locate_voice_model("enormous", fetch=False)
    assert "small" in refused.value.advice
    with pytest.raises(VoiceModelError, match=r"has no config.json and no model.bin"):
        locate_voice_model(str(tmp_path), fetch=False)


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert list(check_voice("")) == []
    [check] = check_voice("small")
    assert check.state == "fail" and "faster-whisper is not installed" in check.found
    assert "requirements/voice.txt" in check.remedy


async def test_a_start_without_package_model_or_hub_is_refused_at_once(tmp_path, monkeypatch):
    settings = Settings(home=tmp_path, voice_model="small")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(VoiceModelError, match="is not installed"):
        await require_startable(settings)
    monkeypatch.undo()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(VoiceModelError, match="not on this machine yet, and HF_HUB_OFFLINE is set"):
        await require_startable(settings)


LIMITED = """
import sys
from bot.transcription.worker import _limit_rights
_limit_rights(400 * 2**20)
try:
    with open(sys.argv[1], "wb") as file:
        file.write(b"x")
except OSError as error:
    print(error.strerror)
try:
    bytearray(600 * 2**20)
except MemoryError:
    print("no memory")
"""


def test_the_process_writes_no_file_and_has_limited_memory(tmp_path):
    file = tmp_path / "file"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(file)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["File too large", "no memory"]
    assert file.read_bytes() == b""
