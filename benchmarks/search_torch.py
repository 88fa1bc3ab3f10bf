"""Torch-Pruning with distillation, for `search.py`: the same network, carried over to PyTorch."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import torch
import torch_pruning
from search_tasks import Task, predictions
from torch import nn
from torch.nn import functional

from saikei.data import Arrays

TEMPERATURE = 2.0
CRITERIA: dict[str, Callable[[], Any]] = {
    "Taylor": torch_pruning.importance.GroupTaylorImportance,
    "magnitude L2": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=2),
}


class Padded(nn.Module):
    """A convolution that pads as Keras's `"same"` does."""

    def __init__(self, layer: keras.layers.Conv1D) -> None:
        super().__init__()
        kernel, stride = layer.get_weights()[0], layer.strides[0]
        size, channels, filters = kernel.shape
        length = layer.input.shape[1]
        total = max(0, (-(-length // stride) - 1) * stride + size - length)
        self.sides = total // 2, total - total // 2
        self.part = nn.Conv1d(channels, filters, size, stride, bias=False)
        self.part.weight.data = torch.from_numpy(kernel.transpose(2, 1, 0).copy())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pad and convolve `(batch, channels, time)`."""
        return self.part(functional.pad(x, self.sides))


class ResNet1D(nn.Module):
    """`search_tasks.resnet_1d` with the weights of a Keras model, up to the logits."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        kinds = keras.layers
        convolutions = sorted(
            (la for la in model.layers if isinstance(la, kinds.Conv1D)), key=number_of
        )
        norms = [la for la in model.layers if isinstance(la, kinds.BatchNormalization)]
        pairs = []
        for convolution in convolutions:
            norm = next(n for n in norms if n.input is convolution.output)
            pairs.append(nn.Sequential(Padded(convolution), normalisation(norm)))
        # In the order in which they were made: the second block has a shortcut of its own.
        self.stem, self.a1, self.a2, self.short, self.b1, self.b2, self.c1, self.c2 = pairs
        kernel, bias = model.layers[-1].get_weights()
        self.head = nn.Linear(*kernel.shape)
        self.head.weight.data = torch.from_numpy(kernel.T.copy())
        self.head.bias.data = torch.from_numpy(bias.copy())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of `(batch, 1, time)`."""
        x = self.stem(x).relu()
        x = (x + self.a2(self.a1(x).relu())).relu()
        x = (self.short(x) + self.b2(self.b1(x).relu())).relu()
        x = (x + self.c2(self.c1(x).relu())).relu()
        return self.head(x.mean(dim=2))


def number_of(layer: keras.layers.Layer) -> int:
    """The number in the name that Keras gave a layer, which rises from one to the next."""
    number = layer.name.rpartition("_")[2]
    return int(number) if number.isdigit() else 0


def normalisation(layer: keras.layers.BatchNormalization) -> nn.BatchNorm1d:
    """A batch normalisation with the same weights."""
    gamma, beta, average, variance = (torch.from_numpy(w.copy()) for w in layer.get_weights())
    made = nn.BatchNorm1d(len(gamma), eps=layer.epsilon, momentum=1 - layer.momentum)
    made.weight.data, made.bias.data = gamma, beta
    made.running_mean, made.running_var = average, variance
    return made


def torch_pruning_distilled(
    task: Task, model: keras.Model, share: float, epochs: int, rates: tuple[float, ...], seed: int
) -> dict[str, Any]:
    """The best on validation over criteria, scopes and learning rates.

    Args:
        task: Data.
        model: The trained network.
        share: The largest share of its MACs.
        epochs: Epochs of each distillation.
        rates: Learning rates.
        seed: Seed of the order of rows.
    """
    whole = ResNet1D(model).eval()
    given = predictions(model, task.train)
    found = softmax(logits(whole, task.train[0]))
    np.testing.assert_allclose(found, given, atol=1e-3)
    results = []
    for name, criterion in CRITERIA.items():
        for everywhere in (True, False):
            small = narrowest(whole, criterion, everywhere, task, share)
            for rate in rates:
                student = copy.deepcopy(small)
                best = distilled(student, logits(whole, task.train[0]), task, epochs, rate, seed)
                label = f"{name}, {'global' if everywhere else 'layer by layer'}, rate {rate:g}"
                results.append((best, label, student, counted(small) / counted(whole)))
                print(f"    {label}: {100 * best:.2f} % on validation", flush=True)
    best, label, student, macs = max(results, key=lambda one: one[0])
    return {
        "epochs": task.epochs + epochs,
        "macs": macs,
        "validation": best,
        "test": right(student, task.test),
        "chosen": label,
    }


def narrowest(
    whole: nn.Module, criterion: Callable[[], Any], everywhere: bool, task: Task, share: float
) -> nn.Module:
    """Bisect the pruning ratio for the largest network that keeps the limit."""
    low, high, best = 0.0, 1.0, None
    for _ in range(9):
        ratio = (low + high) / 2
        small = pruned(whole, criterion(), everywhere, task, ratio)
        if counted(small) <= share * counted(whole):
            high, best = ratio, small
        else:
            low = ratio
    assert best is not None, "no ratio brought the network under the limit"
    return best


def pruned(
    whole: nn.Module, importance: Any, everywhere: bool, task: Task, ratio: float
) -> nn.Module:
    """A copy of a network, pruned in one step."""
    torch.manual_seed(0)
    module = copy.deepcopy(whole)
    pruner = torch_pruning.pruner.BasePruner(
        module,
        torch.zeros(1, 1, 40),
        importance,
        global_pruning=everywhere,
        pruning_ratio=ratio,
        ignored_layers=[module.head],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x, y = task.train[0][:1024], task.train[1][:1024]
        functional.cross_entropy(module(signals(x)), torch.from_numpy(y)).backward()
        pruner.step()
    module.zero_grad()
    return module.eval()


def distilled(
    student: nn.Module, teacher: np.ndarray, task: Task, epochs: int, rate: float, seed: int
) -> float:
    """Train in place with labels and the teacher's logits; the accuracy on validation.

    The student ends with the weights of its best epoch on validation.
    """
    torch.manual_seed(seed)
    x, y = signals(task.train[0]), torch.from_numpy(task.train[1])
    wanted = (torch.from_numpy(teacher) / TEMPERATURE).log_softmax(dim=1)
    size = task.batch_size
    optimizer = torch.optim.Adam(student.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=epochs * -(-len(x) // size), pct_start=0.05
    )
    best, weights = -1.0, student.state_dict()
    for _ in range(epochs):
        student.train()
        for rows in torch.randperm(len(x)).split(size):
            outputs = student(x[rows])
            soft = functional.kl_div(
                (outputs / TEMPERATURE).log_softmax(dim=1),
                wanted[rows],
                log_target=True,
                reduction="batchmean",
            )
            loss = 0.5 * functional.cross_entropy(outputs, y[rows])
            loss = loss + 0.5 * TEMPERATURE**2 * soft
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        student.eval()
        found = right(student, task.validation)
        if found >= best:
            best, weights = found, copy.deepcopy(student.state_dict())
    student.load_state_dict(weights)
    return best


def counted(module: nn.Module) -> int:
    """Multiplications of convolutions and dense layers for one sample."""
    total = 0

    def count(part: Any, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += part.weight.numel() * int(np.prod(output.shape[2:]))

    parts = [m for m in module.modules() if isinstance(m, (nn.Conv1d, nn.Linear))]
    hooks = [part.register_forward_hook(count) for part in parts]
    with torch.no_grad():
        module(torch.zeros(1, 1, 40))
    for hook in hooks:
        hook.remove()
    return total


def signals(x: np.ndarray) -> torch.Tensor:
    """Signals as PyTorch takes them, `(n, channels, time)`."""
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 2, 1)))


def logits(module: nn.Module, x: np.ndarray) -> np.ndarray:
    """What a network in the state of evaluation gives, `(n, classes)`."""
    with torch.no_grad():
        return np.concatenate([module(part).numpy() for part in signals(x).split(1_000)])


def right(module: nn.Module, data: Arrays) -> float:
    """The share of right classes."""
    return float(np.mean(logits(module, data[0]).argmax(axis=1) == data[1]))


def softmax(values: np.ndarray) -> np.ndarray:
    """Probabilities of logits."""
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
