"""The compiled kernel compared with the model in float32: as close as torch in bfloat16, under all
adapters.
"""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from personas.engine.cpu_kernel import build, kernel_runner
from personas.engine.cpu_kernel.build import KernelUnavailableError
from personas.engine.cpu_kernel.kernel_runner import KernelRunner
from personas.engine.kv_cache import CacheShape, SequenceKVCache
from personas.engine.lora_runner import StackedLoraRunner
from personas.engine.lora_slots import AdapterWeights, LoraSlot
from personas.engine.model_runner import ScheduledTokens
from personas.models.int8_linear import quantise_model
from personas.schemas.chat import AdapterRef

CONFIGS = {
    "llama": LlamaConfig(attention_bias=True, mlp_bias=True, num_key_value_heads=1),
    "mistral": MistralConfig(sliding_window=9, num_key_value_heads=4),
    "qwen2": Qwen2Config(
        num_key_value_heads=2, use_sliding_window=True, sliding_window=7, max_window_layers=1
    ),
    "qwen3": Qwen3Config(head_dim=64, num_key_value_heads=2),
}


@pytest.fixture(scope="session")
def library():
    try:
        build.require_supported_cpu()  # the set-up compiles the kernel for other processors, too
        return build.load_compiled() or build.compile_and_load()
    except KernelUnavailableError as error:
        pytest.skip(f"no kernel here: {error}")


def tiny(kind: str, inner: int = 160):
    config = copy.deepcopy(CONFIGS[kind])
    sizes = {
        "vocab_size": 204,
        "hidden_size": 128,
        "intermediate_size": inner,
        "num_hidden_layers": 2,
    }
    config.update(
        {
            **sizes,
            "num_attention_heads": 4,
            "initializer_range": 0.1,
            "tie_word_embeddings": kind == "qwen2",
        }
    )
    if kind == "qwen2":
        config.layer_types = ["full_attention", "sliding_attention"]
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(config).eval()
    for name, weight in model.named_parameters():
        if "norm" in name or "bias" in name:
            torch.nn.init.normal_(weight, mean=float("norm" in name), std=0.2)
    return model.to(torch.bfloat16)


def in_int8(kind: str):
    """Build it with int8 weights and widths that the kernel supports in int8."""
    return quantise_model(tiny(kind, 192))


def exact(kind: str, model=tiny):
    """Build it in float32 with the same weights; for int8, the rounded ones."""
    fine = tiny(kind, 192 if model is in_int8 else 160).float()
    return quantise_model(fine) if model is in_int8 else fine


def rough(*shape: int):
    """Return random numbers that bfloat16 represents exactly."""
    return torch.randn(*shape).bfloat16().float()


def build_runners(library, kind: str, threads: int = 2, made=tiny):
    """Build the kernel, torch in bfloat16 and torch in float32 over the same weights and
    adapters.
    """
    model = made(kind)
    coarse = StackedLoraRunner(model, 4, 0)
    fine = StackedLoraRunner(exact(kind, made), 4, 0)
    for slot, rank in ((1, 4), (2, 18), (3, 1)):
        pairs = {
            name: (rough(rank, linear.in_features) * 0.125, rough(rank, linear.out_features) * 0.25)
            for name, linear in coarse.linears.items()
            if name != "lm_head" and (slot < 3 or "q_proj" in name)
        }
        for runner in (coarse, fine):
            runner.stack.put(slot, AdapterWeights(AdapterRef("a", str(slot), None), pairs))
    return KernelRunner(library, model, coarse.linears, coarse.stack, threads), coarse, fine


def run_batch(runner: StackedLoraRunner, forward):
    """Return log-probabilities of sequences of many lengths under all adapters: prompts, chunks,
    single tokens.
    """
    generator = torch.Generator().manual_seed(7)
    lengths = (1, 2, 3, 5, 17, 40)
    slots = (0, 2, 1, 2, 3, 1)
    prompts = [torch.randint(0, 200, (length,), generator=generator).tolist() for length in lengths]
    rows = [SequenceKVCache(runner.shape, 60) for _ in lengths]
    said = [
        forward(
            [
                ScheduledTokens(*what)
                for what in zip(rows, prompts, map(LoraSlot, slots), strict=True)
            ]
        )
    ]
    forward([ScheduledTokens(rows[0], [3] * 9, LoraSlot(0), logits=0)])
    said.append(forward([ScheduledTokens(rows[5], prompts[4][:4], LoraSlot(1), logits=3)]))
    for step in range(4):
        spans = [
            ScheduledTokens(row, [(step * 31 + at) % 200], LoraSlot(slot))
            for at, (row, slot) in enumerate(zip(rows, slots, strict=True))
        ]
        said.append(forward(spans))
    return torch.cat(said).log_softmax(-1)


@pytest.mark.parametrize(
    ("kind", "made"),
    [*((kind, tiny) for kind in CONFIGS), ("llama", in_int8), ("qwen2", in_int8)],
)
def test_it_is_as_near_to_the_model_as_torch_is(library, kind, made, monkeypatch):
    new_memory = CacheShape.new_memory
    monkeypatch.setattr(
        CacheShape, "new_memory", lambda self, tokens: new_memory(self, tokens).fill_(torch.nan)
    )
    kernel, coarse, fine = build_runners(library, kind, made=made)
    meant = run_batch(fine, fine.forward)
    ours, torchs = (
        run_batch(coarse, forward).sub(meant).abs() for forward in (kernel.forward, coarse.forward)
    )
    kernel.close()
    most = 1.5 if made is tiny else 2
    assert ours.mean() < 1.1 * torchs.mean() and ours.max() < most * torchs.max(), (
        ours.mean(),
        torchs.mean(),
    )


@pytest.mark.parametrize("made", [tiny, in_int8], ids=["bfloat16", "int8"])
def test_the_number_of_threads_changes_nothing(library, made):
    said = []
    for threads in (1, 2, 3):
        kernel, coarse, _ = build_runners(library, "llama", threads, made)
        said.append(run_batch(coarse, kernel.forward))
        kernel.close()
    assert torch.equal(said[0], said[1]) and torch.equal(said[0], said[2])


def test_a_prompt_longer_than_the_kernel_takes_at_once_is_cut(library):
    kernel, coarse, _ = build_runners(library, "llama")
    numbers = torch.arange(700).remainder(200).tolist()
    pieces = SequenceKVCache(coarse.shape, 710)
    logits_of = [
        kernel.forward([ScheduledTokens(pieces, numbers[at : at + 100], LoraSlot(1), logits=100)])
        for at in range(0, 700, 100)
    ]
    whole = SequenceKVCache(coarse.shape, 710)
    other = SequenceKVCache(coarse.shape, 10)
    logits = kernel.forward(
        [
            ScheduledTokens(whole, numbers, LoraSlot(1), logits=250),
            ScheduledTokens(other, [5], LoraSlot(2)),
        ]
    )
    kernel.close()
    assert (
        torch.equal(logits[:250], torch.cat(logits_of)[-250:])
        and whole.tokens == numbers
        and len(logits) == 251
    )


def test_a_stack_that_has_grown_is_looked_at_again(library):
    kernel, coarse, _ = build_runners(library, "qwen3")
    before = kernel.forward(
        [ScheduledTokens(SequenceKVCache(coarse.shape, 9), [1, 2, 3], LoraSlot(1))]
    )
    pairs = {name: (torch.ones(40, part.in_features), torch.zeros(40, part.out_features))
             for name, part in coarse.linears.items() if name != "lm_head"}  # fmt: skip
    coarse.stack.put(9, AdapterWeights(AdapterRef("a", "9", None), pairs))
    assert torch.equal(
        before,
        kernel.forward([ScheduledTokens(SequenceKVCache(coarse.shape, 9), [1, 2, 3], LoraSlot(1))]),
    )
    bare, nothing = (
        kernel.forward(
            [ScheduledTokens(SequenceKVCache(coarse.shape, 9), [1, 2, 3], LoraSlot(slot))]
        )
        for slot in (0, 9)
    )
    kernel.close()
    assert torch.equal(bare, nothing) and not torch.equal(bare, before)


class TestUse:
    """Enabling it, if its logits agree with the model's."""

    def test_what_agrees_is_used(self, library):
        runner = StackedLoraRunner(tiny("llama"), 2, 0)
        kernel_runner.enable_kernel(library, runner)
        assert runner.kernel
        runner.kernel.close()

    def test_what_disagrees_is_not(self, library, monkeypatch, caplog):
        caplog.set_level("INFO")
        runner = StackedLoraRunner(tiny("llama"), 2, 0)
        forward = KernelRunner.forward
        monkeypatch.setattr(
            KernelRunner, "forward", lambda self, spans: forward(self, spans).roll(1, -1)
        )
        kernel_runner.enable_kernel(library, runner)
        assert runner.kernel is None and "differ from the model" in caplog.text

    def test_a_model_of_another_build_is_left_to_torch(self, library, caplog):
        caplog.set_level("INFO")
        model = tiny("llama")
        model.config.hidden_act = "gelu"
        runner = StackedLoraRunner(model, 2, 0)
        kernel_runner.enable_kernel(library, runner)
        assert runner.kernel is None and "another activation" in caplog.text

    def test_int8_weights_of_widths_that_it_does_not_take_are_left_to_torch(self, library, caplog):
        caplog.set_level("INFO")
        runner = StackedLoraRunner(quantise_model(tiny("llama")), 2, 0)
        kernel_runner.enable_kernel(library, runner)
        assert runner.kernel is None and "unsupported widths" in caplog.text

    def test_without_a_compiler_it_is_said(self, monkeypatch, caplog):
        caplog.set_level("INFO")
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setattr(build.shutil, "which", lambda name: None)
        monkeypatch.setattr(build, "require_supported_cpu", lambda: None)
        kernel_runner.compile_kernel(lambda library: pytest.fail("there is none"))
        assert "no C++ compiler" in caplog.text

    @pytest.mark.usefixtures("library")
    def test_compiled_ahead_on_another_processor_it_serves_where_no_compiler_is(
        self, monkeypatch, tmp_path
    ):
        monkeypatch.setattr(build.sys, "prefix", str(tmp_path))
        able = build._cpu_flags()
        monkeypatch.setattr(build, "_cpu_flags", lambda: "flags : fpu sse")
        build.compile_library()
        monkeypatch.setattr(build, "_cpu_flags", lambda: able)
        monkeypatch.setattr(build.shutil, "which", lambda name: None)
        runner = StackedLoraRunner(tiny("llama"), 2, 0)
        kernel_runner.enable_kernel(build.load_compiled(), runner)
        assert runner.kernel
        runner.kernel.close()

    def test_for_another_kind_of_machine_it_is_not_compiled(self, monkeypatch):
        monkeypatch.setattr(build.platform, "machine", lambda: "aarch64")
        with pytest.raises(KernelUnavailableError, match="for x86-64, not for aarch64"):
            build.compile_library()

    def test_another_processor_and_a_source_that_is_missing_are_said(
        self, monkeypatch, caplog, tmp_path
    ):
        caplog.set_level("INFO")
        model = tiny("llama")
        monkeypatch.setattr(build, "_cpu_flags", lambda: "flags : fpu sse")
        assert not kernel_runner.supports_model(model) and "no AVX-512 BF16" in caplog.text
        monkeypatch.setattr(build, "_cpu_flags", lambda: "flags : fpu avx512_bf16")
        assert not kernel_runner.supports_model(model) and "no AVX-512 VNNI" in caplog.text
        monkeypatch.setattr(build, "SOURCE_FILES", [tmp_path / "rows.cpp"])
        assert not kernel_runner.supports_model(model) and "is not installed" in caplog.text

    @pytest.mark.skipif(not build.find_compiler(), reason=build.NO_COMPILER_MESSAGE)
    def test_what_does_not_compile_is_said(self, monkeypatch, caplog, tmp_path):
        caplog.set_level("INFO")
        monkeypatch.setattr(build, "SOURCE", tmp_path / "rows.cpp")
        monkeypatch.setattr(build, "SOURCE_FILES", [tmp_path / "rows.cpp"])
        (tmp_path / "rows.cpp").write_text("this is not C++")
        monkeypatch.setattr(build, "require_supported_cpu", lambda: None)
        kernel_runner.compile_kernel(lambda library: pytest.fail("there is none"))
        assert "does not compile the kernel" in caplog.text
