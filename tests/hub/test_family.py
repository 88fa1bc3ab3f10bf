"""What is cut from a task of KerasHub is a task of its class, with a smaller config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import saikei as sk
from saikei.errors import EditError, ModelWarning
from saikei.graph import build, read
from saikei.graph.samples import random_inputs
from saikei.tensors import to_floats

# Warnings of KerasHub's own imports.
pytestmark = pytest.mark.filterwarnings("ignore:(?!The result is a plain)")
pytest.importorskip("keras_hub", reason="needs the extra 'kerashub'")
from saikei.hub import as_family  # noqa: E402
from tests.hub.small_tasks import TASKS, M, causal, made  # noqa: E402

QUICK = ("bert", "gemma", "gpt2", "llama")
NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in sorted(TASKS)
]


def apart(one: Any, other: Any) -> float:
    """The largest difference of the outputs of two models, as a share of the largest output."""
    inputs = random_inputs(read(one), 3, np.random.default_rng(1))
    ours, theirs = (to_floats(model(inputs, training=False)) for model in (one, other))
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def changed(small: Any, task: Any) -> dict[str, Any]:
    old = task.backbone.get_config()
    return {k: v for k, v in small.backbone.get_config().items() if v != old[k] and k != "name"}


@pytest.mark.parametrize("name", NAMES)
def test_uniform_widths_give_the_same_class_and_the_same_function(name: str) -> None:
    task = made(name)
    edit = sk.PruneChannels(0.5, scope="uniform")
    small = edit(task)
    assert type(small) is type(task) and type(small.backbone) is type(task.backbone)
    assert small.preprocessor is task.preprocessor
    assert apart(small, build(edit.apply(read(task)))) <= 1e-5
    sizes = changed(small, task)
    inner = "mlp_dim" if name == "vit" else "intermediate_dim"
    assert sizes.pop("hidden_dim") == 8 and sizes.pop(inner) == 12
    assert all(2 * size == task.backbone.get_config()[key] for key, size in sizes.items())
    assert set(sizes) & {"num_heads", "num_query_heads"}
    # Keys and values go with the heads that read them.
    assert ("num_key_value_heads" in task.backbone.get_config()) == ("num_key_value_heads" in sizes)


@pytest.mark.parametrize("name", [name for name in NAMES if "bert" not in name.values])
def test_fewer_blocks_give_the_same_class_and_the_same_function(name: str) -> None:
    task = made(name)
    edit = sk.RemoveLayers(2, kinds=("block",))
    small = edit(task)
    assert type(small) is type(task)
    assert apart(small, build(edit.apply(read(task)))) <= 1e-5
    assert changed(small, task) == {"num_layers": 2}


def test_a_cut_language_model_generates_is_saved_as_a_preset_and_takes_lora(tmp_path: Path) -> None:
    task = made("gpt2")
    task.compile(sampler="greedy")
    blocks = sk.RemoveLayers(1, kinds=("block",), ranking="weights")
    small = sk.Recipe([blocks, sk.PruneChannels(0.5, scope="uniform")])(task)
    assert small.backbone.num_layers == 3 and small.backbone.hidden_dim == 8
    text = small.generate("the thin man", max_length=12)
    assert isinstance(text, str) and text.startswith("the thin man")
    assert small.sampler is task.sampler
    small.save_to_preset(str(tmp_path / "preset"))
    loaded = M.CausalLM.from_preset(str(tmp_path / "preset"))
    loaded.compile(sampler="greedy")
    assert type(loaded) is type(task) and loaded.generate("the thin man", max_length=12) == text
    loaded.backbone.enable_lora(2)
    tokens, next_tokens, weights = loaded.preprocessor(["the thin man", "in the house"])
    loaded.preprocessor = None
    loaded.fit(tokens, next_tokens, sample_weight=weights, verbose=0)
    assert len(loaded.trainable_weights) < len(small.trainable_weights)


def test_a_cut_that_the_class_cannot_express_is_a_plain_model_with_a_warning() -> None:
    task = made("llama")
    with pytest.warns(ModelWarning, match=r"without generate\(\).*scope='uniform'"):
        small = sk.PruneChannels(0.5)(task)
    assert type(small) is keras.Model or type(small).__name__ == "Functional"
    with pytest.raises(EditError, match="LlamaCausalLM cannot express this cut"):
        as_family(small, task)
    with pytest.warns(ModelWarning, match=r"kinds=\('block',\)"):
        sk.RemoveLayers(1)(task)


def test_one_block_shows_that_the_class_has_other_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    task = made("llama")
    counts = []
    make = type(task.backbone).from_config

    def counted(config: dict[str, Any]) -> Any:
        counts.append((config["num_layers"], config["vocabulary_size"]))
        return make(config)

    monkeypatch.setattr(type(task.backbone), "from_config", counted)
    with pytest.warns(ModelWarning, match=r"has weights kernel .* it would have kernel"):
        sk.PruneChannels(keep=0.5, scope="layer")(task)
    assert [layers for layers, _ in counts] == [1, 1]
    assert counts[0][1] <= 16
    counts.clear()
    assert type(sk.PruneChannels(0.5, scope="uniform")(task)) is type(task)
    assert [layers for layers, _ in counts] == [1, task.backbone.num_layers]


class PerBlock(M.Backbone):
    """A backbone with a layer that is as wide as it has blocks."""

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int,
        hidden_dim: int,
        intermediate_dim: int,
        **settings: Any,
    ) -> None:
        tokens = keras.Input((None,), dtype="int32", name="token_ids")
        x = keras.layers.Embedding(vocabulary_size, hidden_dim)(tokens)
        x = keras.layers.Dense(hidden_dim)(keras.layers.Dense(7 * num_layers)(x))
        for _ in range(num_layers):
            inner = keras.layers.Dense(intermediate_dim, activation="relu")(x)
            x = keras.layers.Add()([x, keras.layers.Dense(hidden_dim)(inner)])
        super().__init__(inputs={"token_ids": tokens}, outputs=x, **settings)
        self.vocabulary_size, self.num_layers = vocabulary_size, num_layers
        self.hidden_dim, self.intermediate_dim = hidden_dim, intermediate_dim

    def get_config(self) -> dict[str, Any]:
        names = ("vocabulary_size", "num_layers", "hidden_dim", "intermediate_dim")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def test_a_layer_that_is_as_wide_as_there_are_blocks_does_not_count_against_the_class() -> None:
    backbone = PerBlock(20, 3, 12, 24)
    dense = [layer.name for layer in backbone.layers if isinstance(layer, keras.layers.Dense)]
    with pytest.warns(ModelWarning, match="keeps its width"):
        small = sk.PruneChannels(0.5, scope="uniform", layers=dense[2::2])(backbone)
    assert type(small) is PerBlock
    assert (small.intermediate_dim, small.hidden_dim) == (12, 12)


def test_a_plain_model_from_a_file_becomes_a_task_again(tmp_path: Path) -> None:
    task = made("gpt2")
    graph = sk.PruneChannels(0.5, scope="uniform").apply(read(task))
    build(graph).save(tmp_path / "small.keras")
    plain = keras.models.load_model(tmp_path / "small.keras")
    small = as_family(plain, task)
    assert type(small) is type(task) and apart(small, plain) <= 1e-5
    with pytest.raises(EditError, match="not a task or backbone of KerasHub"):
        as_family(plain, plain)


def test_a_backbone_alone_keeps_its_width_and_is_of_its_class() -> None:
    backbone = causal(
        "Llama",
        num_layers=2,
        hidden_dim=16,
        intermediate_dim=24,
        num_query_heads=4,
        num_key_value_heads=2,
    ).backbone
    with pytest.warns(ModelWarning, match=r"keeps its width \(hidden_dim=16\).*cut the task"):
        small = sk.PruneChannels(0.5, scope="uniform")(backbone)
    assert type(small) is type(backbone)
    assert small.intermediate_dim == 12 and small.hidden_dim == 16


def test_influence_orders_the_blocks_as_leaving_each_out_does() -> None:
    task = made("gemma")
    scales = {"decoder_block_0": 0.3, "decoder_block_1": 1.0, "decoder_block_2": 0.03}
    for layer in task.backbone.layers:
        for weight in layer.weights if layer.name in scales else ():
            if "attention_output" in weight.path or "ffw_linear" in weight.path:
                weight.assign(weight.numpy() * scales[layer.name])
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, 40, (8, 6)).astype("int32")
    data = {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
    orders = []
    for ranking in ("influence", "output"):
        units = sk.RemoveLayers(1, ranking, kinds=("block",)).plan(task, data).units
        assert len(units) == 4
        orders.append(np.argsort([unit.score for unit in units])[:2].tolist())
    assert orders[0] == orders[1] == [2, 0]
