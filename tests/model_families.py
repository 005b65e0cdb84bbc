"""Two-layer models of the families that people train, each with a chat template built as its
family's is.
"""

from __future__ import annotations

from dataclasses import replace

from tools.tiny_models import GEMMA_CHAT, GEMMA_TOKENS, TINY_MODELS, TinyModelSpec, byte_level_split
from trainer.export.gguf_vocabulary import LLAMA3_REGEX, QWEN2_REGEX

LLAMA3_CHAT = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul "
    "2024' %}{%- endif %}"
    "{%- endif %}{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] "
    "| trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December "
    "2023\nToday Date: ' }}"
    "{{- date_string + '\n\n' + system + '<|eot_id|>' }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{- message['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- "
    "'<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
QWEN3_CHAT = (
    "{%- set ns = namespace(last=0) %}{%- for message in messages %}{%- if message.role == 'user' "
    "%}"
    "{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\n' }}{%- if message.role == 'assistant' %}"
    "{%- set said = message.content.split('</think>')[-1].lstrip('\n') %}"
    "{%- if loop.index0 > ns.last %}{{- '<think>\n\n</think>\n\n' + said }}{%- else %}{{- said "
    "}}{%- endif %}"
    "{%- else %}{{- message.content }}{%- endif %}{{- '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- "
    "'<think>\n\n</think>\n\n' }}{%- endif %}"
    "{%- endif %}"
)
MISTRAL_CHAT = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('After the optional system message, roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ ' [INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] | trim + eos_token }}{% endif %}{% endfor %}"
)
DEEPSEEK_CHAT = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ 'User: ' + message['content'] + '\n\n' }}{% elif message['role'] == 'assistant' %}"
    "{{ 'Assistant: ' + message['content'] + eos_token }}{% elif message['role'] == 'system' %}"
    "{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
DEEPSEEK_V3_CHAT = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ "
    "message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}{% else %}"
    "{{ '<｜Assistant｜>' + message['content'] + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
)
LATENT = {
    "q_lora_rank": 32, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12,
    "num_key_value_heads": 4, "first_k_dense_replace": 1, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "n_shared_experts": 1, "moe_intermediate_size": 32, "n_group": 1, "topk_group": 1,
}  # fmt: skip
DEEPSEEK = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
SLIDING = 24
"""Tokens; the tests' samples are longer."""

FAMILIES = {
    family.name: family
    for family in (
        TINY_MODELS["SmolLM2"],
        replace(TINY_MODELS["Llama 3.2"], template=LLAMA3_CHAT),
        TINY_MODELS["Qwen2.5"],
        replace(
            TINY_MODELS["Qwen3"], template=QWEN3_CHAT, control=(*TINY_MODELS["Qwen3"].control, "<think>", "</think>")
        ),
        replace(
            TINY_MODELS["Mistral"], template=MISTRAL_CHAT, 
            settings={"tie_word_embeddings": False, "sliding_window": SLIDING},
        ),
        TinyModelSpec(
            "DeepSeek", "llama", DEEPSEEK_CHAT, DEEPSEEK, byte_level_split(LLAMA3_REGEX), {"tie_word_embeddings": False}
        ),
        TinyModelSpec(
            "DeepSeek-V2", "deepseek_v2", DEEPSEEK_CHAT, DEEPSEEK, byte_level_split(LLAMA3_REGEX),
            {**LATENT, "q_lora_rank": None},
        ),
        TinyModelSpec(
            "DeepSeek-V3", "deepseek_v3", DEEPSEEK_V3_CHAT, (*DEEPSEEK, "<｜User｜>", "<｜Assistant｜>"),
            byte_level_split(LLAMA3_REGEX), LATENT,
        ),
        TinyModelSpec("Gemma", "gemma", GEMMA_CHAT, GEMMA_TOKENS, byte_level_split(QWEN2_REGEX), {"head_dim": 16}),
        replace(TINY_MODELS["Gemma 2"], settings={**TINY_MODELS["Gemma 2"].settings, "sliding_window": SLIDING}),
        TinyModelSpec(
            "Gemma 3", "gemma3_text", GEMMA_CHAT, GEMMA_TOKENS, byte_level_split(QWEN2_REGEX),
            {"head_dim": 16, "sliding_window": SLIDING},
        ),
        TINY_MODELS["Phi-3"],
    )
}  # fmt: skip

LINEAR = {
    "head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
    "linear_value_head_dim": 16, "linear_conv_kernel_dim": 4, "num_hidden_layers": 4,
}  # fmt: skip
MAMBA2 = {
    "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_chunk_size": 16,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
PURE_STATE = ("Mamba", "Mamba 2", "RWKV")


def _chatml(name: str, model_type: str, settings: dict[str, object]) -> TinyModelSpec:
    tinier = replace(TINY_MODELS["SmolLM2"], name=name, model_type=model_type)
    return replace(tinier, settings={"tie_word_embeddings": True, **settings})


OTHER_FAMILIES = {
    family.name: family
    for family in (
        _chatml("Qwen3.5", "qwen3_5_text", LINEAR),
        _chatml(
            "Qwen3-Next", "qwen3_next", {**LINEAR, **EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 32}
        ),
        _chatml("LFM2", "lfm2", {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]}),
        _chatml(
            "Falcon-H1", "falcon_h1",
            {"mamba_d_ssm": 64, "head_dim": 16, **MAMBA2, "mamba_n_heads": 4},
        ),
        _chatml(
            "Granite-4-H", "granitemoehybrid",
            {
                "num_hidden_layers": 3, "layer_types": ["mamba", "attention", "mamba"], **MAMBA2,
                "num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 64,
            },
        ),
        _chatml(
            "Nemotron-H", "nemotron_h",
            {
                "num_hidden_layers": 4, "layers_block_type": ["mamba", "attention", "moe", "mamba"],
                "mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 1, "chunk_size": 16,
                "head_dim": 16, **EXPERTS, "n_routed_experts": 4, "moe_shared_expert_intermediate_size": 32,
            },
        ),
        _chatml(
            "Bamba", "bamba", {"num_hidden_layers": 3, "attn_layer_indices": [1], **MAMBA2}
        ),
        _chatml("Mamba", "mamba", {"state_size": 8}),
        _chatml(
            "Mamba 2", "mamba2",
            {"state_size": 8, "num_heads": 8, "head_dim": 16, "n_groups": 1, "expand": 2, "chunk_size": 16},
        ),
        _chatml("RWKV", "rwkv", {"attention_hidden_size": 64}),
        _chatml(
            "Llama 4", "llama4_text",
            {
                "head_dim": 16, "num_local_experts": 2, "num_experts_per_tok": 1, "intermediate_size_mlp": 128,
                "attention_chunk_size": 32,
            },
        ),
        _chatml("gpt-oss", "gpt_oss", {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2}),
        _chatml("OPT", "opt", {"ffn_dim": 128, "word_embed_proj_dim": 64}),
        _chatml("Doge", "doge", {"head_dim": 16}),
        _chatml("Ministral 3", "ministral3", {"head_dim": 16, "sliding_window": None}),
        _chatml(
            "Gemma 4", "gemma4_text",
            {
                "head_dim": 16, "global_head_dim": 16, "vocab_size_per_layer_input": 544,
                "hidden_size_per_layer_input": 16, "num_hidden_layers": 4, "num_kv_shared_layers": 2,
                "sliding_window": 24,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
            },
        ),
        _chatml("Granite", "granite", {}),
        _chatml("OLMo 3", "olmo3", {"sliding_window": 24}),
        _chatml("SmolLM3", "smollm3", {"pad_token_id": 0}),
        _chatml("GLM-4", "glm4", {"head_dim": 16, "pad_token_id": 0}),
        _chatml("EXAONE 4", "exaone4", {"sliding_window": 24, "sliding_window_pattern": 2}),
    )
}  # fmt: skip
"""Families with a state besides keys and values, or whose head or attention is called otherwise
than in the first.
"""
