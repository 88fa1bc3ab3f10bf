"""KerasHub's backbones in small configurations, with random weights."""

from __future__ import annotations

from collections.abc import Callable

import keras
import keras_hub
import numpy as np

M = keras_hub.models

TEXT = {"vocabulary_size": 40, "num_layers": 2, "hidden_dim": 8, "intermediate_dim": 12}
HEADS = {"num_heads": 2, "max_sequence_length": 12}
GROUPED = {
    "vocabulary_size": 40,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 12,
}

BACKBONES: dict[str, Callable[[], keras.Model]] = {
    "albert": lambda: M.AlbertBackbone(**TEXT, **HEADS, embedding_dim=6),
    "bart": lambda: M.BartBackbone(**TEXT, **HEADS),
    "bert": lambda: M.BertBackbone(**TEXT, **HEADS),
    "gemma": lambda: M.GemmaBackbone(**{**GROUPED, "intermediate_dim": 24}, head_dim=4),
    "gpt2": lambda: M.GPT2Backbone(**TEXT, **HEADS),
    "llama": lambda: M.LlamaBackbone(**GROUPED),
    "mistral": lambda: M.MistralBackbone(**GROUPED),
    "qwen": lambda: M.QwenBackbone(**GROUPED),
    "t5": lambda: M.T5Backbone(**TEXT, num_heads=2),
    "vit": lambda: M.ViTBackbone(
        image_shape=(16, 16, 3),
        patch_size=(4, 4),
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=12,
    ),
    "whisper": lambda: M.WhisperBackbone(
        **TEXT,
        num_heads=2,
        max_encoder_sequence_length=16,
        max_decoder_sequence_length=12,
        num_mels=6,
    ),
    "mobilenet": lambda: M.MobileNetBackbone(
        stackwise_expansion=[[8, 16]],
        stackwise_num_blocks=[2],
        stackwise_num_filters=[[8, 8]],
        stackwise_kernel_size=[[3, 3]],
        stackwise_num_strides=[[2, 1]],
        stackwise_se_ratio=[[None, 0.25]],
        stackwise_activation=[["relu", "hard_swish"]],
        stackwise_padding=[[1, 1]],
        output_num_filters=16,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=16,
        input_num_filters=8,
        image_shape=(32, 32, 3),
    ),
    "resnet": lambda: M.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(16, 16, 3),
    ),
}


def made(name: str) -> keras.Model:
    model = BACKBONES[name]()
    generator = np.random.default_rng(0)
    for weight in model.weights:
        low, high = (0.5, 1.5) if "variance" in weight.path else (-0.5, 0.5)
        if keras.backend.is_float_dtype(weight.dtype):
            weight.assign(generator.uniform(low, high, weight.shape))
    return model
