"""Checkpoints that somebody damaged or made up, by seed."""

import hashlib
import json
import pickle
import random

import torch
from safetensors.torch import load_file, save_file

from trainer.train.checkpoint import STATE_FILE, TENSORS_FILE, TRAINER_STATE_FILE


class Bomb:
    """Writes a file when somebody unpickles it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def reseal(checkpoint, tensors=None, **parts):
    """Write other tensors or parts, with a checksum that fits: whoever makes one up can do so."""
    state = json.loads((checkpoint / STATE_FILE).read_text())
    if tensors is not None:
        save_file(tensors, checkpoint / TENSORS_FILE)
    state["sha256"] = hashlib.sha256((checkpoint / TENSORS_FILE).read_bytes()).hexdigest()
    for name, value in parts.items():
        if value is None:
            del state["parts"][name]
        else:
            state["parts"][name] = value
    (checkpoint / STATE_FILE).write_text(json.dumps(state))


def cut(checkpoint, draw):
    file = checkpoint / draw.choice([TENSORS_FILE, STATE_FILE, TRAINER_STATE_FILE])
    file.write_bytes(file.read_bytes()[: draw.randrange(file.stat().st_size)])


def replace_file(checkpoint, draw):
    content = draw.choice(
        [b"", b"[]", b"null", b'"x"', b"{}", b"\xff", b"[" * 100_000, pickle.dumps(Bomb("unused"))]
    )
    (checkpoint / draw.choice([TENSORS_FILE, STATE_FILE, TRAINER_STATE_FILE])).write_bytes(content)
    if content.startswith(b"\x80"):
        reseal_blindly(checkpoint)


def reseal_blindly(checkpoint):
    try:
        reseal(checkpoint)
    except ValueError:  # the state itself was replaced
        return


def change_tensor(checkpoint, draw):
    tensors = load_file(checkpoint / TENSORS_FILE)
    names = [
        name
        for name in tensors
        if name.startswith(("weights.", "optimiser.")) and tensors[name].dim() == 2
    ]
    name = draw.choice(names)
    spoilt = tensors[name].clone()
    spoilt.view(-1)[draw.randrange(spoilt.numel())] = draw.choice([torch.nan, torch.inf])
    whole_numbers = draw.choice([name for name in names if name.startswith("weights.")])
    name, tensor = draw.choice([
        (name, spoilt), (name, tensors[name][:-1].clone()), (name, tensors[name].reshape(-1).clone()),
        (whole_numbers, tensors[whole_numbers].to(torch.int64)),
    ])  # fmt: skip
    reseal(checkpoint, tensors | {name: tensor})


def change_part(checkpoint, draw):
    name = draw.choice(["weights", "optimiser"])
    reseal(
        checkpoint,
        **{name: draw.choice([None, 7, {"dict": []}, {"list": [1]}, {"tensor": "x"}, {"what": 1}])},
    )


def drop_tensor(checkpoint, draw):
    tensors = load_file(checkpoint / TENSORS_FILE)
    del tensors[draw.choice([name for name in tensors if name.startswith("weights.")])]
    reseal(checkpoint, tensors)


def claim_another_step(checkpoint, draw):
    state = json.loads((checkpoint / TRAINER_STATE_FILE).read_text())
    step = draw.choice([0, 4, 10**9, "5", None, [5]])
    (checkpoint / TRAINER_STATE_FILE).write_text(json.dumps(state | {"global_step": step}))


SPOIL = (cut, replace_file, change_tensor, change_part, drop_tensor, claim_another_step)


def spoil(checkpoint, number, seed=1):
    """Spoil a checkpoint in one of the ways in turn, each time with other details."""
    SPOIL[number % len(SPOIL)](checkpoint, random.Random(f"{seed}:{number}"))
