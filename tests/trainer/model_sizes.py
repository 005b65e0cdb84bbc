"""Sizes of base models whose memory and recipes are reckoned in tests, as their config.json
states them; the catalogue that people choose from lists other models from time to time.
"""

from trainer.estimate.model_shape import shape_from_config
from trainer.recipe.auto_recipe import ModelTraits

QWEN_3B = ModelTraits(
    shape_from_config(
        {
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
            "tie_word_embeddings": True,
        }
    ),
    32768,
    "qwen2",
)
LLAMA_3B = ModelTraits(
    shape_from_config(
        {
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 28,
            "num_attention_heads": 24,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 128256,
            "tie_word_embeddings": True,
        }
    ),
    131072,
    "llama",
)
LLAMA_8B = ModelTraits(
    shape_from_config(
        {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
            "tie_word_embeddings": False,
        }
    ),
    131072,
    "llama",
)
