"""Zeros survive training, come gradually where asked, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

from saikei import Sparsify, distill, fit
from saikei.errors import EditError, InputError
from saikei.sparsity import meant_zeros
from saikei.training.plan import Plan
from saikei.training.sparsity import holding_zeros

pytestmark = pytest.mark.backends

L = keras.layers


def network(seed: int = 0, policy: str | None = None) -> keras.Model:
    keras.utils.set_random_seed(seed)
    x = keras.Input((8, 8, 4))
    y = L.Conv2D(8, 3, activation="elu", name="conv", dtype=policy)(x)
    y = L.BatchNormalization(name="norm")(y)
    y = L.Dense(16, activation="tanh", name="hidden", dtype=policy)(L.Flatten()(y))
    return keras.Model(x, L.Dense(3, activation="softmax", name="head")(y))


def data(count: int = 96) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(count, 8, 8, 4)).astype("float32")
    return x, generator.integers(0, 3, count)


def kernels(model: keras.Model) -> dict[str, np.ndarray]:
    return {
        w.path: keras.ops.convert_to_numpy(w) for w in model.weights if w.path.endswith("kernel")
    }


def zeros(model: keras.Model) -> dict[str, np.ndarray]:
    return {path: kernel == 0 for path, kernel in kernels(model).items()}


def train(how: str, model: keras.Model, **arguments: Any) -> keras.callbacks.History:
    arguments = {
        "epochs": 2,
        "batch_size": 16,
        "learning_rate": 0.02,
        "progress": False,
    } | arguments
    if how == "fit":
        return fit(model, data(), data(), **arguments)
    if how == "distill":
        return distill(model, network(1), data(), data(), **arguments)
    return distill(model, network(1), _Batches(), data(), **arguments)


class _Batches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        x, y = data()
        return x[16 * index : 16 * index + 16], y[16 * index : 16 * index + 16]


@pytest.mark.parametrize(
    ("how", "edit"),
    [
        ("fit", Sparsify(0.7)),
        ("fit", Sparsify(pattern="2:4")),
        ("distill", Sparsify(pattern="1:4")),
        pytest.param("distill a dataset", Sparsify(0.9, scope="global"), marks=pytest.mark.slow),
    ],
)
def test_zeros_survive_training_and_everything_else_learns(how: str, edit: Sparsify) -> None:
    model = edit(network())
    before, old = zeros(model), kernels(model)
    train(how, model)
    for path, kernel in kernels(model).items():
        np.testing.assert_array_equal(kernel == 0, before[path])
        # Units that nothing reads any more have no gradient.
        assert (kernel[~before[path]] != old[path][~before[path]]).mean() > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["bfloat16", "mixed_bfloat16"])
def test_zeros_survive_in_other_dtypes(policy: str) -> None:
    model = Sparsify(0.5)(network(policy=policy))
    before = zeros(model)
    train("fit", model, epochs=1)
    for path, kernel in kernels(model).items():
        assert (kernel[before[path]] == 0).all()


@pytest.mark.slow
def test_zeros_survive_momentum_and_weight_decay_of_any_optimizer() -> None:
    for optimizer in (
        keras.optimizers.AdamW(0.05, weight_decay=0.1),
        keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        keras.optimizers.Adam(0.05, gradient_accumulation_steps=2),
    ):
        model = Sparsify(0.6)(network())
        before = zeros(model)
        plan = Plan(1, 16, 0.05, None, 0, False, ())
        with holding_zeros(model, optimizer, plan, 6):
            model.compile(optimizer, "sparse_categorical_crossentropy")
            model.fit(*data(), epochs=2, batch_size=16, verbose=0)
        for path, mask in zeros(model).items():
            np.testing.assert_array_equal(mask, before[path])


@pytest.mark.slow
def test_a_loss_scale_does_not_lose_the_zeros() -> None:
    model = Sparsify(0.6)(network())
    before = zeros(model)
    inner = keras.optimizers.Adam(0.05)
    with holding_zeros(model, inner, Plan(1, 16, 0.05, None, 0, False, ()), 6):
        optimizer = keras.optimizers.LossScaleOptimizer(inner)
        model.compile(optimizer, "sparse_categorical_crossentropy")
        model.fit(*data(), batch_size=16, verbose=0)
    for path, mask in zeros(model).items():
        np.testing.assert_array_equal(mask, before[path])


def test_zeros_fill_up_where_they_are_not_to_be_kept() -> None:
    model = Sparsify(0.7)(network())
    train("fit", model, keep_zeros=False)
    assert all(mask.mean() < 0.05 for mask in zeros(model).values())


def test_rows_and_columns_of_zeros_fill_up_and_a_diagonal_does() -> None:
    model = network()
    kernel, bias = model.get_layer("hidden").get_weights()
    kernel[10:20] = 0
    model.get_layer("hidden").set_weights([kernel, bias])
    window, bias = model.get_layer("conv").get_weights()
    window[0] = 0
    model.get_layer("conv").set_weights([window, bias])
    square = L.Dense(8, kernel_initializer="identity", name="square")
    model = keras.Sequential([model, L.Dense(8), square, L.Dense(3, activation="softmax")])
    assert sum(int(mask.sum()) for mask in zeros(model).values()) > 100
    train("fit", model, epochs=3)
    assert all(mask.mean() < 0.05 for mask in zeros(model).values())


@pytest.mark.parametrize(
    ("how", "edit"),
    [
        ("fit", Sparsify(0.8)),
        ("distill", Sparsify(pattern="1:4")),
        pytest.param("fit", Sparsify(pattern="1:4"), marks=pytest.mark.slow),
        pytest.param("distill", Sparsify(0.8, layers=("hidden",)), marks=pytest.mark.slow),
    ],
)
def test_a_schedule_ends_at_the_whole_sparsity(how: str, edit: Sparsify) -> None:
    model = network()
    train(how, model, epochs=3, sparsify=edit)
    target = {kernel.layer: kernel.zeros for kernel in edit.plan(network()).kernels}
    for path, mask in zeros(model).items():
        layer = path.split("/")[0]
        assert mask.sum() == (target[layer].sum() if layer in target else 0), path
    if edit.pattern != "unstructured":
        groups = kernels(model)["conv/kernel"].transpose(2, 0, 1, 3).reshape(1, 4, -1)
        assert ((groups != 0).sum(axis=1) == 1).all()


class _Shares(keras.callbacks.Callback):
    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.watched, self.shares = model, [0.0]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        self.shares.append(float(zeros(self.watched)["hidden/kernel"].mean()))


@pytest.mark.parametrize("how", ["fit", pytest.param("distill", marks=pytest.mark.slow)])
def test_the_schedule_is_the_cubic_and_never_goes_back(how: str) -> None:
    model = network()
    watch = _Shares(model)
    train(how, model, epochs=5, sparsify=Sparsify(0.9), callbacks=[watch])
    end = round(2 / 3 * 30)
    expected = [0.9 * (1 - (1 - min(t / end, 1)) ** 3) for t in range(31)]
    np.testing.assert_allclose(watch.shares, expected, atol=1e-3)


def test_the_best_epoch_is_one_at_the_whole_sparsity() -> None:
    model = network()
    # It learns to contradict what it predicted at first: validation gets worse and worse.
    x, _ = data()
    predicted = keras.ops.convert_to_numpy(model(x, training=False)).argmax(axis=1)
    history = fit(
        model,
        (x, (predicted + 1) % 3),
        (x, predicted),
        epochs=6,
        batch_size=16,
        learning_rate=0.01,
        progress=False,
        sparsify=Sparsify(0.75),
    )
    assert int(np.argmin(history.history["val_loss"])) < 3
    assert all(mask.mean() == pytest.approx(0.75, abs=0.01) for mask in zeros(model).values())


@pytest.mark.slow
def test_a_schedule_adds_to_zeros_that_are_there() -> None:
    model = Sparsify(0.5)(network())
    before = zeros(model)
    train("fit", model, sparsify=Sparsify(0.8))
    for path, mask in zeros(model).items():
        assert mask[before[path]].all()
        assert mask.mean() == pytest.approx(0.8, abs=0.01)


@pytest.mark.slow
def test_a_dataset_of_unknown_length_reaches_the_sparsity_too() -> None:
    tf = pytest.importorskip("tensorflow")
    dataset = tf.data.Dataset.from_tensor_slices(data()).batch(16).filter(lambda x, y: True)
    for epochs in (1, 3):
        model = network()
        fit(model, dataset, epochs=epochs, progress=False, sparsify=Sparsify(0.6))
        assert all(m.mean() == pytest.approx(0.6, abs=0.01) for m in zeros(model).values())


class _StopAtOnce(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.stop_training = True


def test_a_training_that_is_stopped_early_is_sparse_all_the_same() -> None:
    model = network()
    train("fit", model, epochs=9, sparsify=Sparsify(0.6), callbacks=[_StopAtOnce()])
    assert all(mask.mean() == pytest.approx(0.6, abs=0.01) for mask in zeros(model).values())


@pytest.mark.long
def test_nothing_of_it_is_left_in_the_model(tmp_path: Any) -> None:
    model = Sparsify(0.5)(network())
    model.get_layer("hidden").kernel.constraint = keep = keras.constraints.MaxNorm(3.0)
    train("fit", model)
    constraints = [v.constraint for v in model.variables]
    assert [c for c in constraints if c is not None] == [keep]
    assert not any("zeros" in v.path for v in model.optimizer.variables)
    model.save(tmp_path / "sparse.keras")
    loaded = keras.models.load_model(tmp_path / "sparse.keras")
    assert loaded.get_layer("conv").kernel_constraint is None
    x, _ = data(4)
    np.testing.assert_array_equal(
        *(keras.ops.convert_to_numpy(m(x, training=False)) for m in (model, loaded))
    )
    # What is loaded is as sparse, and stays so.
    before = zeros(loaded)
    train("fit", loaded, epochs=1)
    for path, mask in zeros(loaded).items():
        np.testing.assert_array_equal(mask, before[path])


@pytest.mark.slow
def test_a_constraint_of_the_layer_holds_as_well() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            L.Flatten(),
            L.Dense(8, kernel_constraint="non_neg", name="bounded"),
            L.Dense(3, activation="softmax"),
        ]
    )
    model = Sparsify(0.5, layers=("bounded",))(model)
    mask = zeros(model)["bounded/kernel"]
    train("fit", model)
    kernel = kernels(model)["bounded/kernel"]
    assert (kernel[mask] == 0).all() and (kernel >= 0).all() and (kernel > 0).any()


def test_what_cannot_be_used_is_refused_before_anything_is_trained() -> None:
    model = network()
    model.compile("sgd", "sparse_categorical_crossentropy")
    optimizer, weights = model.optimizer, model.get_weights()
    with pytest.raises(InputError, match=r"give a saikei.Sparsify"):
        train("fit", model, sparsify=0.8)
    with pytest.raises(EditError, match="did you mean 'head'"):
        train("fit", model, sparsify=Sparsify(layers=("haed",)))
    assert model.optimizer is optimizer
    for one, other in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert all(v.constraint is None for v in model.variables)


def cases() -> Iterator[Any]:
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(3, 3, 6, 8))
    yield "dense", kernel, False
    yield "empty", np.zeros((4, 4)), False
    for name, index in {
        "input row": np.s_[:, :, 2],
        "output column": np.s_[..., 5],
        "window position": np.s_[0, 2],
        "ring": np.s_[:, 0],
    }.items():
        changed = kernel.copy()
        changed[index] = 0
        yield name, changed, False
    changed = kernel.copy()
    changed[:, :, 2], changed[0, 0], changed[1, 1, 3, 3] = 0, 0, 0
    yield "rows and one weight", changed, True
    yield "identity", np.eye(5), False
    large = generator.normal(size=(40, 50))
    large[3, 4] = 0
    yield "one by chance", large, False
    yield "average as a convolution", np.tile(np.eye(5) / 9, (3, 3, 1, 1)), False
    yield "two blocks", np.kron(np.eye(2), generator.normal(size=(3, 4))), True
    column = generator.normal(size=(9, 1))
    column[::2] = 0
    yield "one output", column, True
    yield "one input", column.T, True
    depthwise = generator.normal(size=(3, 3, 5, 1))
    depthwise[0, 0, 2] = depthwise[2, 1, 4] = 0
    yield "depthwise", depthwise, True


@pytest.mark.parametrize(
    ("kernel", "sparse"), [c[1:] for c in cases()], ids=[c[0] for c in cases()]
)
def test_zeros_are_meant_where_they_are_no_structure(kernel: np.ndarray, sparse: bool) -> None:
    found = meant_zeros(kernel)
    assert (found is not None) == sparse
    if found is not None:
        np.testing.assert_array_equal(found, kernel == 0)
