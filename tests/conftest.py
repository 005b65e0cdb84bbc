"""Shared by all tests: the embedded model's tokenizer, and a tiny random model that is served and
trained for real.
"""

import gc
import os
import signal

import pytest

from personas.models.base_model import EMBEDDED, BaseModel, locate
from personas.models.loading import load_tokenizer
from personas.prompt.renderer import Renderer

pytest_plugins = ["tests.figures", "tests.memory_folder", "tests.openapi.plugin"]

# Torch reads this as it is loaded. A thread that waits by spinning takes the core that the other
# workers and their processes need: on two busy cores, a run of a tiny model took three times as
# much CPU.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell starts what is to run in the background like this
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Nothing that is collected can be freed: looking for garbage among 10,000 tests and all that they
# import takes ten seconds.
gc.disable()


def pytest_collection_finish() -> None:
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def _little_to_look_through():
    """What stands at the beginning of a file stays; a collector that looks at all of torch takes a
    second a run.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def renderer() -> Renderer:
    return Renderer(load_tokenizer(locate(EMBEDDED)))


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory, renderer) -> BaseModel:
    """A folder with a two-layer Llama with random weights and the embedded model's tokenizer."""
    from tests.tiny_models import (
        make_tiny_model,
    )  # imports torch and peft, which most tests do without

    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_tiny_model(folder, renderer.tokenizer)
    return locate(str(folder))


@pytest.fixture(scope="module")
def one_thread():
    """Run on one thread: so small a model is slower on more, above all on shared cores."""
    import torch  # most tests do without

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
