"""Which tensors `distill` compares: the ends of stages, or what is named, or a clear refusal."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from saikei.distilling.features import pair_features
from saikei.errors import InputError, ModelError
from saikei.graph import read


def conv_net(width=8, size=16, name="net"):
    x = inputs = keras.Input((size, size, 1))
    for stage in range(3):
        for step in range(2):
            stride = 2 if stage and not step else 1
            x = layers.Conv2D(width, 3, stride, padding="same", name=f"conv{stage}{step}")(x)
            x = layers.BatchNormalization(name=f"norm{stage}{step}")(x)
            x = layers.ReLU(name=f"relu{stage}{step}")(x)
        x = layers.Dropout(0.1, name=f"drop{stage}")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(16, activation="relu", name="hidden")(x)
    x = layers.Dense(10, name="logits")(x)
    return keras.Model(inputs, layers.Softmax(name="answer")(x), name=name)


def names(student, teacher, features):
    pairs = pair_features(read(student), read(teacher), features)
    return [(pair.student.layer, pair.teacher.layer) for pair in pairs]


def same(*layer_names):
    return [(name, name) for name in layer_names]


def test_the_ends_of_stages_are_compared():
    found = names(conv_net(4), conv_net(8), "auto")
    assert found == same("relu01", "relu11", "relu21", "hidden")


def test_only_layers_that_both_have_are_compared():
    teacher = conv_net(8)
    x = teacher.get_layer("relu11").output
    short = keras.Model(teacher.inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    assert names(short, teacher, "auto") == same("relu01", "relu11")


def test_a_dense_network_is_looked_at_at_even_depths():
    def net():
        dense = [layers.Dense(8, "relu", name=f"d{i}") for i in range(8)]
        return keras.Sequential([keras.Input((4,)), *dense, layers.Dense(2, name="answer")])

    assert names(net(), net(), "auto") == same("d1", "d3", "d5", "d7")


def test_a_residual_network_of_one_resolution_is_looked_at_between_its_branches():
    def net():
        x = inputs = keras.Input((5, 8))
        for i in range(3):
            branch = layers.Dense(8, "relu", name=f"up{i}")(x)
            x = layers.Add(name=f"sum{i}")([x, layers.Dense(8, name=f"down{i}")(branch)])
        return keras.Model(inputs, layers.Dense(2, name="answer")(x))

    assert names(net(), net(), "auto") == same("sum0", "sum1", "sum2")


def test_nothing_before_the_first_kernel_or_behind_the_last_is_compared():
    def net():
        parts = [layers.Rescaling(2.0, name="scale"), layers.Dense(4, name="one")]
        parts += [layers.Dense(3, name="two"), layers.Activation("softmax", name="answer")]
        return keras.Sequential([keras.Input((4,)), *parts])

    assert names(net(), net(), "auto") == same("one")


def test_layers_of_nested_models_are_found():
    inputs = keras.Input((16, 16, 1))
    outer = keras.Model(inputs, layers.Dense(10, name="last")(conv_net(name="inner")(inputs)))
    assert ("relu01", "relu01") in names(outer, conv_net(), "auto")


def test_named_layers_are_compared():
    found = names(conv_net(4), conv_net(8), {"conv10": "norm11", "hidden": "hidden"})
    assert found == [("conv10", "norm11"), ("hidden", "hidden")]


def test_the_finer_resolution_gives_way():
    student, teacher = read(conv_net(size=12)), read(conv_net(size=16))
    (pair,) = pair_features(student, teacher, {"relu01": "relu11"})
    assert pair.positions() == (8, 8)
    (pair,) = pair_features(student, teacher, {"relu11": "relu01"})
    assert pair.positions() == (6, 6)


def test_channels_are_found_where_the_layers_before_have_them():
    inputs = keras.Input((3, 8, 10))
    x = layers.Conv2D(5, 1, data_format="channels_first", name="conv")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.ReLU(name="relu")(x)))
    (pair,) = pair_features(read(model), read(model), {"relu": "relu"})
    assert pair.student.shape == (8, 10, 5)
    assert pair.student.channel_axis == 1


def odd():
    inputs = keras.Input((6,))
    shared = layers.Dense(6, name="shared")
    x = shared(shared(inputs))
    states = layers.LSTM(4, return_state=True, name="states")(layers.Reshape((3, 2))(x))
    whole = keras.ops.cast(x, "int32")
    folded = layers.Reshape((2, 3), name="folded")(x)
    behind = layers.Flatten()(layers.Dense(2, name="behind")(folded))
    outputs = layers.Dense(2)(layers.Concatenate()([states[0], behind]))
    return keras.Model(inputs, [outputs, whole], name="odd")


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"shaerd": "behind"}, r"'shaerd' of student 'odd', .* does not have: .*'shared'"),
        ({"behind": "nothing"}, "'nothing' of teacher 'odd', which it does not have"),
        ({"shared": "behind"}, "'shared' of student 'odd', which is called 2 times"),
        ({"states": "behind"}, "'states' of student 'odd', which gives 3 tensors"),
        ({"ops.Cast": "behind"}, "student 'odd', which gives int32"),
        ({"behind": "Concatenate"}, r"'behind' of the student has 2 axes.*teacher has 1"),
        ({}, "names no layers"),
        ("all", "give .auto."),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(features, message):
    graph = read(odd())
    if isinstance(features, dict):
        # Layers without a name of their own are given by their kind.
        by_kind = {operation.kind: name for name, operation in graph.operations.items()}
        features = {
            by_kind.get(ours, ours): by_kind.get(theirs, theirs)
            for ours, theirs in features.items()
        }
    with pytest.raises(InputError, match=message):
        pair_features(graph, graph, features)


def test_a_size_that_only_one_model_has_is_refused():
    def net(length):
        inputs = keras.Input((length, 4))
        return keras.Model(inputs, layers.Dense(2)(layers.Dense(3, name="dense_in")(inputs)))

    with pytest.raises(InputError, match="one is known and the other is not"):
        names(net(None), net(7), {"dense_in": "dense_in"})
    assert names(net(None), net(None), {"dense_in": "dense_in"}) == same("dense_in")


def test_models_without_a_common_name_are_refused():
    a = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.Dense(2)])
    b = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="b"), layers.Dense(2)])
    with pytest.raises(ModelError, match="no layers of the same name"):
        names(a, b, "auto")
