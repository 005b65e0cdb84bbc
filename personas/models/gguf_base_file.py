"""The GGUF file of a base model, for programs that read no other format."""

from pathlib import Path

from personas.errors import BaseModelError
from personas.models.base_model import EMBEDDED, BaseModel
from personas.models.bundled_model import bundled_gguf_file
from personas.models.gguf_file import is_gguf
from personas.models.gguf_names import find_gguf

CONVERT_ADVICE = (
    "Set ENGINE_MODEL to a GGUF file of the same model: from its page on a hub, or written by "
    "llama.cpp's `convert_hf_to_gguf.py {folder} --outfile base.gguf`."
)


def find_base_gguf(base: BaseModel, setting: str = "") -> Path:
    """Return a base model's GGUF file: the one of the setting (ENGINE_MODEL), else the one that
    BASE_MODEL names. Raises `BaseModelError`.
    """
    if base.scaling:
        raise BaseModelError(
            f"llama.cpp is not told of the RoPE scaling of {base.name}.",
            "Serve it with ENGINE=local, or train over the model without scaling.",
        )
    if setting:
        file = Path(setting).expanduser()
        if not is_gguf(file):
            raise BaseModelError(
                f"ENGINE_MODEL is {setting}, which is no GGUF file.",
                "Name the base model's GGUF file, or leave it out.",
            )
        return file.absolute()
    name = base.name.removesuffix(f"#{base.template}")
    if name == EMBEDDED:
        return bundled_gguf_file()
    if found := find_gguf(name, fetch=False):
        return found.absolute()
    raise BaseModelError(
        f"llama.cpp reads GGUF files, and BASE_MODEL {base.name} is none.",
        CONVERT_ADVICE.format(folder=base.folder),
    )
