"""KerasHub's tasks in small configurations, with random weights and tokenizers made here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras_hub
import numpy as np

M = keras_hub.models

SIZES = {"num_layers": 4, "hidden_dim": 16, "intermediate_dim": 24}
GROUPED = {**SIZES, "num_query_heads": 4, "num_key_value_heads": 2}
HEADS = {**SIZES, "num_heads": 4, "max_sequence_length": 16}
WORDS = ["the", "thin", "man", "is", "in", "a", "house"]


def byte_vocabulary() -> tuple[dict[str, int], list[str]]:
    """Every byte is a token, and so are the ends of texts and three pairs."""
    pairs = ["t h", "h e", "i n"]
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    letters = [chr(byte if byte in plain else next(others)) for byte in range(256)]
    tokens = ["<|endoftext|>", *letters, *(pair.replace(" ", "") for pair in pairs)]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}, pairs


def gpt2(**sizes: int) -> Any:
    vocabulary, merges = byte_vocabulary()
    tokenizer = M.GPT2Tokenizer(vocabulary=vocabulary, merges=merges)
    return M.GPT2CausalLM(
        backbone=M.GPT2Backbone(vocabulary_size=len(vocabulary), **{**HEADS, **sizes}),
        preprocessor=M.GPT2CausalLMPreprocessor(tokenizer, sequence_length=12),
    )


def bert(**sizes: int) -> Any:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return M.BertTextClassifier(
        backbone=M.BertBackbone(vocabulary_size=len(vocabulary), **{**HEADS, **sizes}),
        num_classes=3,
        preprocessor=M.BertTextClassifierPreprocessor(
            M.BertTokenizer(vocabulary=vocabulary), sequence_length=8
        ),
    )


def causal(family: str, **arguments: Any) -> Any:
    backbone = getattr(M, f"{family}Backbone")(vocabulary_size=40, **arguments)
    return getattr(M, f"{family}CausalLM")(backbone=backbone, preprocessor=None)


TASKS: dict[str, Callable[[], Any]] = {
    "bert": bert,
    "gemma": lambda: causal("Gemma", **GROUPED, head_dim=4),
    "gemma3": lambda: causal("Gemma3", **GROUPED, head_dim=4, image_size=16),
    "gpt2": gpt2,
    "llama": lambda: causal("Llama", **GROUPED),
    "mistral": lambda: causal("Mistral", **GROUPED),
    "opt": lambda: causal("OPT", **HEADS),
    "phi3": lambda: causal("Phi3", **GROUPED),
    "qwen3": lambda: causal("Qwen3", **GROUPED, head_dim=4),
    "vit": lambda: M.ViTImageClassifier(
        backbone=M.ViTBackbone(
            image_shape=(16, 16, 3),
            patch_size=(4, 4),
            num_layers=4,
            num_heads=4,
            hidden_dim=16,
            mlp_dim=24,
        ),
        num_classes=3,
    ),
}


def made(name: str) -> Any:
    """The task with random weights, its biases too."""
    task = TASKS[name]()
    generator = np.random.default_rng(0)
    for weight in task.weights:
        weight.assign(0.3 * generator.standard_normal(weight.shape))
    return task
