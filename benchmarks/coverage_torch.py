"""Which architectures of torchvision Torch-Pruning cuts right, by the oracle of `coverage.py`.

For each classification model, at random weights: a quarter of the channels of each layer is chosen
by magnitude. First they are silenced, by zeros in the filters, biases and normalisations that make
them; then they are cut. Both have to give the same outputs. Where a channel that is silenced so
does not give zeros everywhere, for example behind a sigmoid, the outputs differ although the cut
may be right: such models are listed with their difference.

Each model has a process of its own, one at a time: a crash, a hang or a fault is a row.

    pip install '.[benchmarks]'
    python benchmarks/coverage_torch.py
"""

from __future__ import annotations

import copy
import json
import sys
from typing import Any

import numpy as np
from isolated import command_line, failed, faults, measure_all, parsed
from pruning_speed import torchvision
from record import record

COLUMNS = {"model": "model", "share": "parameters left", "error": "max\\|Δ\\|"}
# Relative to the largest output, as for ours.
TOLERANCE = 1e-5
# The smallest inputs that these networks take; the others get 64 pixels.
SIDES = {"inception_v3": 96, "maxvit_t": 224}
# A number that no other layer has, so that heads are known by it.
CLASSES = 37


def main() -> None:
    """Measure each model in a process of its own, and write the results."""
    arguments = parsed(command_line("models", __doc__.splitlines()[0]), "models")
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    names = arguments.models or names_of_torchvision()
    rows = measure_all(__file__, names, arguments, COLUMNS, line)
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(result(row), []).append(row["model"])
    lines = [[name, str(len(models)), ", ".join(models)] for name, models in found.items()]
    every = len(names_of_torchvision())
    settings = {"measured": f"{len(rows)} of {every}"} if len(rows) < every else {}
    record("coverage_torch", rows, ("result", "number", "models"), lines, **settings)


def result(row: dict[str, Any]) -> str:
    """What came of a model, in words that several share."""
    if "fault" not in row:
        return "cut right"
    return "outputs differ" if "error" in row else f"stops: {row['fault'].split(': ')[1]}"


def names_of_torchvision() -> list[str]:
    """Every classification model, from small to large."""
    models = torchvision().models

    def parameters(name: str) -> int:
        return int(models.get_model_weights(name).DEFAULT.meta["num_params"])

    return sorted(models.list_models(module=models), key=parameters)


def measure(name: str) -> dict[str, Any]:
    """The largest difference of a model whose channels are silenced and one without them."""
    import torch
    import torch_pruning

    torch.manual_seed(0)
    model = torchvision().models.get_model(name, weights=None, num_classes=CLASSES).eval()
    randomise(model)
    side = SIDES.get(name, 224 if name.startswith(("vit", "swin")) else 64)
    x = torch.randn(4, 3, side, side)
    before = sum(weight.numel() for weight in model.parameters())
    heads = [
        part
        for part in model.modules()
        if CLASSES in (getattr(part, "out_features", 0), getattr(part, "out_channels", 0))
    ]
    pruner = torch_pruning.pruner.BasePruner(
        model,
        x[:1],
        torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.25,
        ignored_layers=heads,
    )
    silent = copy.deepcopy(model)
    parts = dict(silent.named_modules())
    names = {part: key for key, part in model.named_modules()}
    left: dict[str, np.ndarray] = {}
    for group in pruner.step(interactive=True):
        for dependency, channels in group:
            target, kind = dependency.target.module, dependency.handler.__name__
            if target in names and kind == "prune_out_channels":
                # A group has indices of what the groups before it have left.
                name = names[target]
                there = left.get(name, np.arange(len(parts[name].weight)))
                silence(parts[name], there[channels])
                left[name] = np.delete(there, channels)
        group.prune()
    with torch.no_grad():
        expected, found = silent(x), model(x)
    error = float((found - expected).abs().max() / expected.abs().max())
    after = sum(weight.numel() for weight in model.parameters())
    row = {"share": after / before, "error": error}
    wrong = {
        "nothing was cut": after == before,
        f"differs by {error:.1e}": not error <= TOLERANCE,
    }
    return row | faults(wrong)


def randomise(model: Any) -> None:
    """Statistics of normalisations other than zeros and ones, so that a wrong cut shows."""
    import torch

    for part in model.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
            torch.nn.init.normal_(part.bias, 0, 0.1)


def silence(part: Any, channels: np.ndarray) -> None:
    """Zeros in everything that makes some output channels of a layer."""
    import torch

    norms = (torch.nn.modules.batchnorm._BatchNorm, torch.nn.LayerNorm, torch.nn.GroupNorm)
    with torch.no_grad():
        if isinstance(part, torch.nn.modules.conv._ConvTransposeNd):
            part.weight[:, channels] = 0
        elif getattr(part, "weight", None) is not None:
            part.weight[channels] = 0
        if getattr(part, "bias", None) is not None:
            part.bias[channels] = 0
        if isinstance(part, norms) and getattr(part, "running_mean", None) is not None:
            part.running_mean[channels] = 0


def line(row: dict[str, Any]) -> str:
    """One line of the table: the figures, or why there are none."""
    if "error" not in row:
        return failed(row, COLUMNS)
    fault = f" **failed**: {row['fault']}" if "fault" in row else ""
    return f"| {row['model']}{fault} | {row['share']:.0%} | {row['error']:.0e} |"


if __name__ == "__main__":
    sys.exit(main())
