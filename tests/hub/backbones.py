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
    "esm2": lambda: M.ESM2Backbone(**TEXT, **HEADS),
    "gemma3": lambda: M.Gemma3Backbone(
        **{**GROUPED, "intermediate_dim": 24}, head_dim=4, image_size=16
    ),
    "llama3": lambda: M.Llama3Backbone(**GROUPED),
    "qwen3": lambda: M.Qwen3Backbone(**GROUPED, head_dim=4),
}

# More for the benchmark of coverage; in some of them little or nothing can be cut yet.
MORE: dict[str, Callable[[], keras.Model]] = {
    # It has a weight for masked patches, which nothing uses at inference.
    "dinov2": lambda: M.DINOV2Backbone(
        patch_size=4,
        num_layers=2,
        hidden_dim=8,
        num_heads=2,
        intermediate_dim=12,
        image_shape=(16, 16, 3),
        position_embedding_shape=(16, 16, 3),
    ),
    "bloom": lambda: M.BloomBackbone(**TEXT, num_heads=2),
    "deberta_v3": lambda: M.DebertaV3Backbone(**TEXT, **HEADS, bucket_size=4),
    "distil_bert": lambda: M.DistilBertBackbone(**TEXT, **HEADS),
    "electra": lambda: M.ElectraBackbone(
        vocab_size=40, num_layers=2, hidden_dim=8, intermediate_dim=12, embedding_dim=6, **HEADS
    ),
    "f_net": lambda: M.FNetBackbone(**TEXT, max_sequence_length=12),
    "falcon": lambda: M.FalconBackbone(**TEXT, num_attention_heads=2),
    "gpt_neo_x": lambda: M.GPTNeoXBackbone(**{**TEXT, "hidden_dim": 16}, **HEADS),
    "gpt_oss": lambda: M.GptOssBackbone(**GROUPED, head_dim=4, num_experts=3),
    "mixtral": lambda: M.MixtralBackbone(**GROUPED, num_experts=3),
    "opt": lambda: M.OPTBackbone(**TEXT, **HEADS),
    "phi3": lambda: M.Phi3Backbone(**GROUPED),
    "qwen2": lambda: M.Qwen2Backbone(**GROUPED),
    "roberta": lambda: M.RobertaBackbone(**TEXT, **HEADS),
    "roformer_v2": lambda: M.RoformerV2Backbone(**TEXT, num_heads=2, head_size=4),
    "smol_lm3": lambda: M.SmolLM3Backbone(
        vocabulary_size=40,
        num_layers=2,
        hidden_dim=16,
        intermediate_dim=12,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=False,
        attention_dropout=0.0,
        rope_layer_enabled_list=[True, False],
        layer_types=["full_attention"] * 2,
        mlp_bias=False,
        layer_norm_epsilon=1e-6,
        max_position_embeddings=16,
        rope_theta=10000.0,
        partial_rotary_factor=1.0,
    ),
    "t5_gemma": lambda: M.T5GemmaBackbone(
        vocabulary_size=40,
        cross_attention_hidden_size=16,
        **{
            f"{part}_{name}": value
            for part in ("encoder", "decoder")
            for name, value in {
                "hidden_dim": 16,
                "intermediate_dim": 12,
                "num_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 4,
                "layer_types": ["full_attention"] * 2,
            }.items()
        },
    ),
    "xlm_roberta": lambda: M.XLMRobertaBackbone(**TEXT, **HEADS),
    "xlnet": lambda: M.XLNetBackbone(**TEXT, num_heads=2),
    # Images.
    "deit": lambda: M.DeiTBackbone(
        image_shape=(16, 16, 3),
        patch_size=(4, 4),
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=12,
    ),
    "densenet": lambda: M.DenseNetBackbone(
        stackwise_num_repeats=[2, 2], image_shape=(32, 32, 3), growth_rate=8
    ),
    "efficientnet": lambda: M.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * 2,
        stackwise_depth_coefficients=[1.0] * 2,
        stackwise_kernel_sizes=[3, 3],
        stackwise_num_repeats=[2, 2],
        stackwise_input_filters=[16, 8],
        stackwise_output_filters=[8, 16],
        stackwise_expansion_ratios=[1, 4],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
        stackwise_strides=[1, 2],
        stackwise_block_types=["v1", "fused"],
        stackwise_force_input_filters=[0, 0],
        stackwise_nores_option=[False] * 2,
        input_shape=(32, 32, 3),
        num_features=32,
    ),
    "hgnet_v2": lambda: M.HGNetV2Backbone(
        depths=[1, 1],
        embedding_size=8,
        hidden_sizes=[16, 32],
        stem_channels=[3, 8, 8],
        hidden_act="relu",
        use_learnable_affine_block=True,
        stackwise_stage_filters=[[8, 8, 16, 1, 2, 3], [16, 8, 32, 1, 2, 3]],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, True],
        image_shape=(32, 32, 3),
    ),
    "mit": lambda: M.MiTBackbone(
        layerwise_depths=[1, 1],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        image_shape=(32, 32, 3),
        hidden_dims=[8, 16],
    ),
    "swin": lambda: M.SwinTransformerBackbone(
        image_shape=(32, 32, 3),
        embed_dim=8,
        depths=[2, 2],
        num_heads=[2, 2],
        window_size=4,
        patch_size=2,
    ),
    "vgg": lambda: M.VGGBackbone(
        stackwise_num_repeats=[1, 2], stackwise_num_filters=[8, 16], image_shape=(16, 16, 3)
    ),
    "vit_det": lambda: M.ViTDetBackbone(
        hidden_size=8,
        num_layers=2,
        intermediate_dim=12,
        num_heads=2,
        global_attention_layer_indices=[1],
        image_shape=(16, 16, 3),
        patch_size=4,
        num_output_channels=8,
        window_size=2,
    ),
    "xception": lambda: M.XceptionBackbone(
        stackwise_conv_filters=[[8, 8], [16, 16], [16, 16, 16]],
        stackwise_pooling=[True, True, False],
        image_shape=(32, 32, 3),
    ),
}


def made(name: str) -> keras.Model:
    model = {**BACKBONES, **MORE}[name]()
    generator = np.random.default_rng(0)
    for weight in model.weights:
        low, high = (0.5, 1.5) if "variance" in weight.path else (-0.5, 0.5)
        if keras.backend.is_float_dtype(weight.dtype):
            weight.assign(generator.uniform(low, high, weight.shape))
    return model
