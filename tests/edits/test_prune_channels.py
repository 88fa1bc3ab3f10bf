"""Which channels go, how many, and the message when they cannot."""

from __future__ import annotations

import itertools
import json

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei import Budget, DropChannels, PruneChannels, Recipe, profile
from saikei.channels import channel_groups
from saikei.errors import BudgetError, EditError, PinnedWarning
from tests.rules.nets import Remembering


def seed_network() -> keras.Model:
    """The small convolutional network that the documentation uses throughout."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            L.Conv2D(32, 3, activation="relu", name="conv1"),
            L.MaxPooling2D(),
            L.Conv2D(64, 3, activation="relu", name="conv2"),
            L.MaxPooling2D(),
            L.Conv2D(64, 3, activation="relu", name="conv3"),
            L.Flatten(),
            L.Dense(64, activation="relu", name="hidden"),
            L.Dense(10, activation="softmax", name="classes"),
        ]
    )


class Batches(keras.utils.PyDataset):
    """Arrays in batches of 8."""

    def __init__(self, arrays: tuple[np.ndarray, ...]) -> None:
        super().__init__()
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays[0]) // 8

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        return tuple(array[8 * index : 8 * index + 8] for array in self.arrays)


def widths(model: keras.Model) -> dict[str, int]:
    names = ("conv1", "conv2", "conv3", "hidden", "classes")
    return {name: model.get_layer(name).output.shape[-1] for name in names}


def bytes_of(model: keras.Model) -> list[bytes]:
    return [np.asarray(w).tobytes() for w in model.variables]


@pytest.mark.parametrize(
    ("scope", "importance"),
    [
        ("global", "magnitude"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("layer", "magnitude"), ("layer", "random"), ("global", "random"))
        ),
    ],
)
def test_the_input_model_is_not_touched(scope: str, importance: str) -> None:
    model = seed_network()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(np.zeros((4, 28, 28, 1)), np.zeros(4), verbose=0)
    before = bytes_of(model) + bytes_of(model.optimizer)
    PruneChannels(0.5, importance, scope)(model)  # type: ignore[arg-type]
    assert bytes_of(model) + bytes_of(model.optimizer) == before


def test_layer_scope_keeps_the_same_share_of_every_layer_but_the_outputs() -> None:
    small = PruneChannels(0.5, scope="layer")(seed_network())
    assert widths(small) == {"conv1": 16, "conv2": 32, "conv3": 32, "hidden": 32, "classes": 10}


def test_an_integer_in_layer_scope_is_a_number_of_channels() -> None:
    small = PruneChannels(40, scope="layer")(seed_network())
    assert widths(small) == {"conv1": 32, "conv2": 40, "conv3": 40, "hidden": 40, "classes": 10}


@pytest.mark.parametrize("keep", [0.3, 100])
def test_global_scope_keeps_the_asked_total(keep: float | int) -> None:
    small = PruneChannels(keep, "random", "global")(seed_network())
    total = sum(widths(small).values()) - 10
    assert total == pytest.approx(keep if isinstance(keep, int) else keep * 224, abs=4)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_kept_numbers_are_multiples_where_asked(scope: str) -> None:
    small = PruneChannels(0.4, scope=scope, multiple_of=8)(seed_network())  # type: ignore[arg-type]
    assert all(width % 8 == 0 for name, width in widths(small).items() if name != "classes")


def test_excluded_layers_keep_their_width() -> None:
    small = PruneChannels(0.5, scope="layer", exclude=("conv2",))(seed_network())
    assert widths(small)["conv2"] == 64
    assert widths(small)["conv1"] == 16


def test_an_unknown_layer_in_exclude_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(EditError, match="'con2'.*did you mean 'conv2'"):
        PruneChannels(0.5, exclude=("con2",))(seed_network())


def test_magnitude_cuts_the_channels_whose_weights_are_smallest() -> None:
    model = seed_network()
    layer = model.get_layer("conv2")
    kernel, bias = layer.get_weights()
    weak = [3, 17, 40]
    kernel[..., weak] *= 1e-3
    layer.set_weights([kernel, bias])
    plan = PruneChannels(61 / 64, scope="layer", exclude=("conv1", "conv3", "hidden")).plan(model)
    assert plan.channels == {"conv2": tuple(weak)}


def test_magnitude_of_tied_layers_looks_at_all_of_them() -> None:
    tensor = keras.Input((4, 4, 2))
    a, b = L.Conv2D(4, 1, name="a"), L.Conv2D(4, 1, name="b")
    model = keras.Model(tensor, L.Dense(2)(L.Flatten()(L.Add()([a(tensor), b(tensor)]))))
    kernel_a, kernel_b = np.ones((1, 1, 2, 4)), np.ones((1, 1, 2, 4))
    kernel_a[..., 1] = 0  # weak in a only
    kernel_a[..., 2] = kernel_b[..., 2] = 0.5  # weak in both
    a.set_weights([kernel_a, np.zeros(4)])
    b.set_weights([kernel_b * 2, np.zeros(4)])
    plan = PruneChannels(3, scope="layer").plan(model)
    assert plan.channels == {"a": (2,), "b": (2,)}


QUICK = (
    ("macs", "global", 0.5),
    ("macs", "global", 0.02),
    ("params", "global", 0.1),
    ("macs", "layer", 0.1),
    ("params", "layer", 0.5),
)


@pytest.mark.parametrize(
    ("limit", "scope", "share"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in itertools.product(
            ("macs", "params"), ("layer", "global"), (0.5, 0.25, 0.1, 0.02)
        )
    ],
)
def test_a_budget_is_kept_and_nearly_used_up(share: float, scope: str, limit: str) -> None:
    model = seed_network()
    small = PruneChannels(Budget(**{limit: share}), scope=scope)(model)  # type: ignore[arg-type]
    ratio = getattr(profile(small, latency=False), limit) / getattr(
        profile(model, latency=False), limit
    )
    assert 0.75 * share <= ratio <= share


def test_an_absolute_budget_is_kept() -> None:
    small = PruneChannels(Budget(macs=700_000, params=30_000))(seed_network())
    costs = profile(small, latency=False)
    assert costs.macs <= 700_000 and costs.params <= 30_000


def test_an_impossible_budget_names_the_smallest_that_is_possible() -> None:
    model = seed_network()
    with pytest.raises(BudgetError, match=r"macs can be brought down to ([\d,]+)") as caught:
        PruneChannels(Budget(macs=100))(model)
    smallest = int(str(caught.value).split("down to ")[1].split(" ")[0].replace(",", ""))
    reached = profile(PruneChannels(Budget(macs=smallest), scope="layer")(model), latency=False)
    assert reached.macs == smallest


def test_keeping_everything_is_refused_rather_than_returned_unchanged() -> None:
    with pytest.raises(EditError, match="would change nothing"):
        PruneChannels(1.0)(seed_network())
    with pytest.raises(EditError, match="would change nothing"):
        PruneChannels(Budget(macs=1.0))(seed_network())


@pytest.mark.parametrize(
    ("layers", "exclude", "message"),
    [
        ([L.Flatten()], (), "no layer has channels. Give a model with a dense"),
        ([L.Dense(3, name="a")], (), "a: a model output. .* Sparsify changes such layers too"),
        ([L.Dense(6, name="a"), L.Dense(3)], ("a",), "Choose other layers, or exclude fewer"),
    ],
)
def test_nothing_to_cut_names_a_fix(
    layers: list[keras.Layer], exclude: tuple[str, ...], message: str
) -> None:
    with pytest.raises(EditError, match=message):
        PruneChannels(0.5, exclude=exclude)(keras.Sequential([keras.Input((8,)), *layers]))


def test_a_model_with_nothing_to_cut_gets_the_reason() -> None:
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="only")])
    with pytest.raises(EditError, match="only: a model output"):
        PruneChannels(0.5)(model)


def test_layers_that_stay_whole_because_their_kind_is_unknown_are_named() -> None:
    model = keras.Sequential(
        [
            keras.Input((6, 3)),
            L.Conv1D(8, 1, name="a"),
            L.Conv1D(8, 1, name="b"),
            Remembering(name="memory"),
            L.Dense(2),
        ]
    )
    with pytest.warns(PinnedWarning, match="memory.*: it adds a loss"):
        small = PruneChannels(0.5, scope="layer")(model)
    assert small.get_layer("a").filters == 4
    assert small.get_layer("b").filters == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep": 0.0}, "above 0"),
        ({"keep": 1.5}, "above 0 and at most 1"),
        ({"keep": 0}, "has to be at least 1"),
        ({"keep": True}, "give a number or a Budget"),
        ({"keep": 1}, "cut every layer to one channel.*0.5"),
        ({"keep": 0.5, "layers": "conv1"}, r"\('conv1',\)"),
        ({"keep": 0.5, "importance": "magic"}, "magnitude"),
        ({"keep": 0.5, "scope": "sideways"}, "'global', 'layer' or 'uniform'"),
        ({"keep": 0.5, "multiple_of": 0}, "at least 1"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(EditError, match=message):
        PruneChannels(**arguments)  # type: ignore[arg-type]


def test_a_number_for_all_groups_has_to_leave_each_a_channel() -> None:
    with pytest.raises(EditError, match=r"all \d+ groups together.*a share such as 0.5"):
        PruneChannels(2)(seed_network())


def test_layers_choose_the_groups_that_are_cut() -> None:
    model = seed_network()
    assert set(PruneChannels(0.5, layers=("conv1",)).plan(model).channels) == {"conv1"}
    with pytest.raises(EditError, match="both names and excludes layer 'conv1'"):
        PruneChannels(0.5, layers=["conv1"], exclude=["conv1"]).plan(model)


def test_same_seed_same_channels() -> None:
    model = seed_network()
    plans = [PruneChannels(0.5, "random", seed=seed).plan(model) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]


def test_a_plan_replays_to_the_same_weights() -> None:
    model = seed_network()
    edit = PruneChannels(0.4)
    direct, replayed = edit(model), edit.plan(model)(model)
    for one, other in zip(direct.get_weights(), replayed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_plan_made_with_data_replays_to_the_same_refitted_weights() -> None:
    model = seed_network()
    x = np.random.default_rng(0).normal(size=(40, *model.input_shape[1:])).astype("float32")
    data = x, np.zeros(40, dtype=int)
    for edit in (PruneChannels(0.4), PruneChannels(0.4, compensate=False)):
        plan = edit.plan(model, data)
        assert DropChannels.from_dict(plan.to_dict()) == plan
        direct, replayed = edit(model, data), plan(model, data)
        for one, other in zip(direct.get_weights(), replayed.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_sample_weights_of_calibration_data_are_left_aside() -> None:
    model = seed_network()
    x = np.random.default_rng(0).normal(size=(40, *model.input_shape[1:])).astype("float32")
    y = np.zeros(40, dtype=int)
    edit = PruneChannels(0.4)
    without = edit(model, (x, y)).get_weights()
    weights = np.linspace(0, 1, 40)
    for data in ((x, y, weights), Batches((x, y, weights))):
        with_them = edit(model, data).get_weights()
        for one, other in zip(without, with_them, strict=True):
            np.testing.assert_array_equal(one, other)


def test_dropping_in_one_tied_layer_drops_in_all() -> None:
    tensor = keras.Input((4, 4, 2))
    a, b = L.Conv2D(4, 1, name="a")(tensor), L.Conv2D(4, 1, name="b")(tensor)
    model = keras.Model(tensor, L.Dense(2, name="out")(L.Flatten()(L.Add()([a, b]))))
    small = DropChannels({"a": (1,), "b": (3,)})(model)
    assert small.get_layer("a").filters == small.get_layer("b").filters == 2


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ({"conv1": (32,)}, "channels 0 to 31"),
        ({"conv1": tuple(range(32))}, "without any channel"),
        ({"classes": (0,)}, "model output"),
        ({"nothing": (0,)}, "did you mean"),
        ({}, "change nothing"),
    ],
)
def test_dropping_what_cannot_go_is_refused(
    channels: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(EditError, match=message):
        DropChannels(channels)(seed_network())


def test_a_recipe_replays_from_json_on_a_fresh_copy() -> None:
    model = seed_network()
    recipe = Recipe([PruneChannels(Budget(macs=0.5), multiple_of=2), DropChannels({"conv1": (0,)})])
    text = recipe.to_json()
    assert json.loads(text)["edits"][0]["keep"] == {"budget": {"macs": 0.5}}
    first, second = recipe(model), Recipe.from_json(text)(model)
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "no list 'edits'"),
        ('{"edits": []}', "at least one edit"),
        ('{"edits": [{"edit": "Melt"}]}', "Unknown edit 'Melt'"),
        ('{"edits": [{"edit": "PruneChannels", "keeep": 1}]}', "PruneChannels"),
    ],
)
def test_a_bad_recipe_is_refused(text: str, message: str) -> None:
    with pytest.raises(EditError, match=message):
        Recipe.from_json(text)


def test_groups_print_as_a_table() -> None:
    table = str(channel_groups(seed_network()))
    assert "conv2" in table and "pinned: a model output" in table


def test_uniform_scope_cuts_whole_heads_and_the_width_that_they_fill() -> None:
    x = inputs = keras.Input((5, 3))
    x = keras.layers.Dense(16, name="stream")(x)
    for number in range(2):
        heads = keras.layers.MultiHeadAttention(4, 4, name=f"attention_{number}")
        x = keras.layers.Add()([x, heads(x, x)])
        hidden = keras.layers.Dense(10, activation="relu", name=f"hidden_{number}")(x)
        x = keras.layers.Add()([x, keras.layers.Dense(16)(hidden)])
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    small = PruneChannels(0.6, scope="uniform")(model)
    for number in range(2):
        config = small.get_layer(f"attention_{number}").get_config()
        assert (config["num_heads"], config["key_dim"], config["value_dim"]) == (2, 4, 4)
        assert small.get_layer(f"hidden_{number}").units == 6
    assert small.get_layer("stream").units == 8
