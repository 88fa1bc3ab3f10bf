"""Accuracy right after the cut, before any fine-tuning: Saikei against Torch-Pruning and onnxsim.

The network of the documentation is trained on Fashion-MNIST, once for each seed, and cut to 50, 25
and 10 % of its MACs: by Saikei; carried over to a PyTorch twin with the same weights, by each
criterion of Torch-Pruning, ranked over the whole network and layer by layer; and written to ONNX,
by onnxsim, which fits what is left by ridge regression. MACs are counted the same way, as the
multiplications of convolutions and dense layers; the peers' ratios are bisected for the largest
network that keeps the limit. All may look at the same training samples; test data is looked at once
for each result. The peers' best criterion is taken after the fact, on test data, which favours
them.

    pip install '.[tensorflow,onnx,benchmarks]'
    python benchmarks/accuracy_before_training.py
"""

from __future__ import annotations

import argparse
import copy
import itertools
import os
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import torch
import torch_pruning
from onnxsim_pruning import onnxsim_cuts
from record import record
from scipy import stats
from torch.nn import functional

import saikei
from saikei.datasets import fashion_mnist
from saikei.importance import CRITERIA

LIMITS = (0.5, 0.25, 0.1)
SAMPLES = 512
Arrays = tuple[np.ndarray, np.ndarray]


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--limits", type=float, nargs="+", default=LIMITS, help="of the MACs")
    parser.add_argument("--epochs", type=int, default=8, help="of the training from scratch")
    parser.add_argument("--models", nargs="+", help="trained .keras files, instead of training")
    parser.add_argument("--all", action="store_true", help="every importance of Saikei")
    arguments = parser.parse_args()
    data = fashion_mnist()
    assert data.test is not None
    rows: list[dict[str, Any]] = []
    for label, model in trained(arguments, data.train):
        base = accuracy(model, data.test)
        print(f"{label}: {base:.4f} before the cut", flush=True)
        for limit in arguments.limits:
            ours = saikei_cuts(model, data.train, limit, arguments.all)
            theirs = torch_pruning_cuts(model, data.train, limit)
            others = onnxsim_cuts(model, data.train[0][sampled(data.train)], limit)
            for name, score, share in itertools.chain(ours, theirs, others):
                lost = 100 * (base - score(data.test))
                row = {"network": label, "method": name, "limit": limit, "macs": share}
                rows.append({**row, "lost": lost})
                print(f"  {limit:4.0%} {name:38} {lost:6.2f}", flush=True)
    columns = ("cut by", *(f"at {100 * limit:.0f} %" for limit in arguments.limits))
    settings = {"epochs": arguments.epochs, "networks": len({row["network"] for row in rows})}
    record("one_shot", rows, columns, lines(rows, arguments.limits), **settings)


def trained(arguments: argparse.Namespace, train: Arrays) -> Iterator[tuple[str, keras.Model]]:
    """The networks to cut."""
    if arguments.models:
        for path in arguments.models:
            yield path, keras.saving.load_model(path, compile=False)
        return
    for seed in arguments.seeds:
        keras.utils.set_random_seed(seed)
        model = network()
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(*train, epochs=arguments.epochs, batch_size=64, verbose=0)
        yield f"seed {seed}", model


def network() -> keras.Model:
    """The small convolutional network of the documentation."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def accuracy(model: keras.Model, data: Arrays) -> float:
    """Share of the samples that a Keras model gets right."""
    predicted = model.predict(data[0], batch_size=1000, verbose=0).argmax(axis=1)
    return float((predicted == data[1]).mean())


# What made it, its accuracy on given data, and its share of the MACs.
Cut = tuple[str, Callable[[Arrays], float], float]


def saikei_cuts(model: keras.Model, train: Arrays, limit: float, every: bool) -> Iterator[Cut]:
    """Saikei with data, without, and, if asked, with every criterion."""
    budget = saikei.Budget(macs=limit)
    edits = {
        "saikei, with data": (saikei.PruneChannels(budget), train),
        "saikei, with data, not compensated": (
            saikei.PruneChannels(budget, compensate=False),
            train,
        ),
        "saikei, without data": (saikei.PruneChannels(budget), None),
    }
    for name in CRITERIA if every else ():
        if name != "bn_scale":  # the network has no BatchNormalization
            edits[f"saikei {name}"] = (saikei.PruneChannels(budget, name), train)
    whole = saikei.profile(model, latency=False).macs
    for name, (edit, data) in edits.items():
        small = edit(model, data)
        share = saikei.profile(small, latency=False).macs / whole
        yield name, lambda test, small=small: accuracy(small, test), share


def twin(model: keras.Model) -> torch.nn.Module:
    """The same network with the same weights in PyTorch, up to the logits."""
    nn = torch.nn
    parts: list[Any] = []
    shape: tuple[int, ...] = (28, 28, 1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, bias = layer.get_weights()
            part = nn.Conv2d(kernel.shape[2], kernel.shape[3], kernel.shape[:2])
            parts += [loaded(part, kernel.transpose(3, 2, 0, 1), bias), nn.ReLU()]
        elif isinstance(layer, keras.layers.MaxPooling2D):
            parts.append(nn.MaxPool2d(2))
        elif isinstance(layer, keras.layers.Flatten):
            shape = tuple(layer.input.shape[1:])
            parts.append(nn.Flatten())
        elif isinstance(layer, keras.layers.Dense):
            kernel, bias = layer.get_weights()
            if len(kernel) == int(np.prod(shape)):  # PyTorch flattens channels first
                kernel = kernel.reshape(*shape, -1).transpose(2, 0, 1, 3).reshape(len(kernel), -1)
            parts += [loaded(nn.Linear(*kernel.shape), kernel.T, bias), nn.ReLU()]
    made = nn.Sequential(*parts[:-1]).eval()
    x = np.random.default_rng(0).random((8, 28, 28, 1)).astype("float32")
    with torch.no_grad():
        ours, theirs = model.predict(x, verbose=0), made(nchw(x)).softmax(dim=1).numpy()
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    return made


def loaded(part: Any, kernel: np.ndarray, bias: np.ndarray) -> Any:
    """A PyTorch layer with these weights."""
    part.weight.data = torch.from_numpy(np.ascontiguousarray(kernel))
    part.bias.data = torch.from_numpy(bias.copy())
    return part


def nchw(x: np.ndarray) -> torch.Tensor:
    """Pictures as PyTorch takes them."""
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def torch_accuracy(module: torch.nn.Module, data: Arrays) -> float:
    """Share of the samples that a PyTorch model gets right."""
    with torch.no_grad():
        parts = [module(nchw(part)).argmax(dim=1).numpy() for part in np.array_split(data[0], 10)]
    return float((np.concatenate(parts) == data[1]).mean())


def torch_macs(module: torch.nn.Module) -> int:
    """Multiplications of convolutions and dense layers for one sample."""
    total = 0

    def count(part: Any, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += part.weight.numel() * int(np.prod(output.shape[2:]))

    parts = [m for m in module.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    hooks = [part.register_forward_hook(count) for part in parts]
    with torch.no_grad():
        module(torch.zeros(1, 1, 28, 28))
    for hook in hooks:
        hook.remove()
    return total


def torch_criteria() -> dict[str, Callable[[], Any]]:
    """Every criterion of Torch-Pruning that this network allows, with its default settings."""
    found = torch_pruning.importance
    return {
        "magnitude L1": lambda: found.GroupMagnitudeImportance(p=1),
        "magnitude L2": lambda: found.GroupMagnitudeImportance(p=2),
        "LAMP": found.LAMPImportance,
        "FPGM": found.FPGMImportance,
        "Taylor": found.GroupTaylorImportance,
        "Hessian": found.GroupHessianImportance,
        "OBD-C": lambda: found.OBDCImportance(num_classes=10),
        "activation": found.ActivationImportance,
        "random": found.RandomImportance,
    }


def sampled(train: Arrays) -> np.ndarray:
    """The rows that peers look at."""
    return np.random.default_rng(0).choice(len(train[0]), SAMPLES, replace=False)


def torch_pruning_cuts(model: keras.Model, train: Arrays, limit: float) -> Iterator[Cut]:
    """Torch-Pruning with each criterion and both scopes."""
    whole = twin(model)
    full = torch_macs(whole)
    assert full == saikei.profile(model, latency=False).macs
    rows = sampled(train)
    samples = nchw(train[0][rows]), torch.from_numpy(train[1][rows].astype("int64"))
    for name, criterion in torch_criteria().items():
        for scope in ("global", "layer"):
            label = f"torch-pruning {name}, {scope}"
            try:
                small = narrowest(whole, criterion, scope == "global", samples, int(limit * full))
            except (TypeError, ValueError, RuntimeError) as error:
                # The peer's own failure: OBD-C of version 1.6.1 stops on groups that it skips.
                print(f"  {label:38} failed: {error}", flush=True)
                continue
            share = torch_macs(small) / full
            yield label, lambda test, small=small: torch_accuracy(small, test), share


def narrowest(
    whole: torch.nn.Module, criterion: Callable[[], Any], everywhere: bool, samples: Any, limit: int
) -> torch.nn.Module:
    """Bisect the pruning ratio for the largest network that keeps the limit."""
    low, high, best = 0.0, 1.0, None
    for _ in range(9):
        ratio = (low + high) / 2
        small = pruned(whole, criterion(), everywhere, samples, ratio)
        if torch_macs(small) <= limit:
            high, best = ratio, small
        else:
            low = ratio
    if best is None:
        raise ValueError("no ratio brings the network under the limit")
    return best


def pruned(
    whole: torch.nn.Module, importance: Any, everywhere: bool, samples: Any, ratio: float
) -> torch.nn.Module:
    """A copy of a network, pruned in one step."""
    torch.manual_seed(0)
    module = copy.deepcopy(whole)
    pruner = torch_pruning.pruner.BasePruner(
        module,
        torch.zeros(1, 1, 28, 28),
        importance,
        global_pruning=everywhere,
        pruning_ratio=ratio,
        ignored_layers=[module[-1]],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        look_at_data(module, pruner, importance, *samples)
        if isinstance(importance, torch_pruning.importance.ActivationImportance):
            with importance.compute_importance(module), torch.no_grad():
                module(samples[0])
        pruner.step()
    return module.eval()


def look_at_data(
    module: torch.nn.Module, pruner: Any, importance: Any, x: torch.Tensor, y: torch.Tensor
) -> None:
    """What the library's own examples do before they prune by a criterion that uses data."""
    found = torch_pruning.importance
    if isinstance(importance, found.OBDCImportance):
        importance._prepare_model(module, pruner)
        for start in range(0, len(x), 64):
            module.zero_grad()
            loss = functional.cross_entropy(module(x[start : start + 64]), y[start : start + 64])
            loss.backward()
            importance.step()
        importance._rm_hooks(module)
    elif isinstance(importance, found.GroupHessianImportance):
        for one, label in zip(x.split(1), y.split(1), strict=True):
            module.zero_grad()
            functional.cross_entropy(module(one), label).backward()
            importance.accumulate_grad(module)
    elif isinstance(importance, found.GroupTaylorImportance):
        functional.cross_entropy(module(x), y).backward()


def lines(rows: list[dict[str, Any]], limits: Sequence[float]) -> list[list[str]]:
    """Points lost, mean and 95 % interval over networks, the best at the second limit first."""

    def lost(method: str, limit: float) -> list[float]:
        key = {"method": method, "limit": limit}
        return [row["lost"] for row in rows if key.items() <= row.items()]

    middle = sorted(limits)[len(limits) // 2]
    methods = dict.fromkeys(row["method"] for row in rows)
    ordered = sorted(methods, key=lambda method: statistics.fmean(lost(method, middle) or [100]))
    return [[method, *(interval(lost(method, limit)) for limit in limits)] for method in ordered]


def interval(points: list[float]) -> str:
    """A mean and half of its interval; that it failed, where there is no value."""
    if not points:
        return "failed"
    half = f" ± {half_width(points):.2f}" if len(points) > 1 else ""
    return f"{statistics.fmean(points):.2f}{half}"


def half_width(points: list[float]) -> float:
    """Half of the 95 % interval of a mean, by Student's t."""
    error = statistics.stdev(points) / len(points) ** 0.5
    return float(stats.t.ppf(0.975, len(points) - 1)) * error


if __name__ == "__main__":
    main()
