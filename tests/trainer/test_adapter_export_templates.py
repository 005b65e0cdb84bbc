"""An export's own chat template, read back by its own reader, writes the prompts that were
trained.
"""

import shutil

import pytest
from transformers import AutoTokenizer

from personas.errors import ExportError
from personas.home.adapters import MANIFEST_FILE, write_manifest
from personas.models.base_model import locate
from personas.models.loading import load_tokenizer
from personas.prompt.chat_template import FIXED_DATE, ChatTemplate
from personas.prompt.renderer import Renderer
from personas.schemas.chat import Turn
from personas.schemas.training import AdapterManifest
from tools.tiny_models import TINY_MODELS, make_adapter, make_model
from trainer.export.exporter import OWN_TEMPLATE_NOTE, export_adapter

TODAY_AND_CHANNEL = (
    "{{ '<|begin_of_text|>Today: ' + strftime_now('%d %b %Y') }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>' }}"
    "{{ '<|channel|>final<|message|>' if message['role'] == 'assistant' }}{{ message['content'] + "
    "'<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>' "
    "}}{% endif %}\n"
)
"""A template with the date of today, and a channel before replies as gpt-oss has it."""
TURNS = [Turn("Guest", "one"), Turn("", "two", True), Turn("Guest", "three")]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Adapters over models that think, tell the date, or have channels."""
    folder = tmp_path_factory.mktemp("templates")
    kinds = {
        "Qwen3": TINY_MODELS["Qwen3"],
        "Llama 3.2": TINY_MODELS["Llama 3.2"],
        "channels": TINY_MODELS["Llama 3.1"],
    }
    made = {}
    for name, kind in kinds.items():
        base = make_model(kind, folder / name / "base")
        if name == "channels":
            tokenizer = AutoTokenizer.from_pretrained(base.source)
            tokenizer.chat_template = TODAY_AND_CHANNEL
            tokenizer.save_pretrained(base.source)
            base = locate(base.source)
        made[name] = make_adapter(kind, base, folder / name / "adapter", persona=None), base
    return made


def export(adapters, name, to, out):
    return export_adapter(adapters[name][0], to, out, None, None, lambda _: None)


@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("Qwen3", "merged"),
        pytest.param("Llama 3.2", "merged", marks=pytest.mark.slow),
        ("channels", "adapter"),
    ],
)
def test_transformers_reads_the_trained_prompts_from_the_folder(adapters, tmp_path, name, to):
    export(adapters, name, to, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    renderer = Renderer(load_tokenizer(adapters[name][1]))
    messages = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    messages.append({"role": "user", "content": "three"})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == renderer.prompt(None, TURNS).text
    marks = {
        "Qwen3": "<think>\n\n</think>\n\n",
        "Llama 3.2": FIXED_DATE,
        "channels": "<|channel|>final<|message|>",
    }
    assert marks[name] in text
    assert "writes the prompts that it was trained on" in (
        tmp_path / "out" / "README.md"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "to",
    [
        "adapter",
        pytest.param("merged", marks=pytest.mark.slow),
        pytest.param("gguf", marks=pytest.mark.slow),
    ],
)
def test_an_export_whose_template_writes_another_prompt_is_refused(
    adapters, tmp_path, monkeypatch, to
):
    monkeypatch.setattr(ChatTemplate, "frozen", lambda self, with_prefix: self._own + " ")
    with pytest.raises(ExportError, match="prompts that the adapter"):
        export(adapters, "Qwen3", to, tmp_path / "out")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_gguf_file_and_a_modelfile_write_the_trained_prompts(adapters, tmp_path):
    export(adapters, "channels", "ollama", tmp_path / "ollama")
    modelfile = (tmp_path / "ollama" / "Modelfile").read_text(encoding="utf-8")
    assert "<|channel|>final<|message|>" in modelfile and FIXED_DATE in modelfile
    assert sorted(path.name for path in (tmp_path / "ollama").iterdir()) == [
        "Modelfile",
        "model.gguf",
    ]


def test_an_adapter_of_an_earlier_version_is_exported_with_the_prompts_that_it_has_learned(
    adapters, tmp_path
):
    folder = shutil.copytree(adapters["channels"][0], tmp_path / "earlier")
    manifest = AdapterManifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    write_manifest(folder, manifest.model_copy(update={"prompt_version": "3"}))
    export_adapter(folder, "adapter", tmp_path / "out", None, None, lambda _: None)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("assistant<|end_header_id|>") and FIXED_DATE in text


@pytest.mark.slow
def test_a_gguf_adapter_says_that_the_bases_template_writes_other_prompts(adapters, tmp_path):
    report = export(adapters, "Qwen3", "gguf-lora", tmp_path / "lora.gguf")
    assert OWN_TEMPLATE_NOTE in report.outcome.notes
