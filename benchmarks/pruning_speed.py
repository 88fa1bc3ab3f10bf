"""Time to find the channel groups, prune and rebuild: Saikei against Torch-Pruning.

Both cut the same networks (Keras's and torchvision's ResNet50, ResNet152 and DenseNet121 at
224 × 224) to half of the channels of each layer by weight magnitude, from a trained model in
memory to a model that can be called. Runs alternate, so that a busy machine slows both alike.
Afterwards, the memory that the largest of them takes at its peak.

    pip install '.[tensorflow,benchmarks]'
    python benchmarks/pruning_speed.py
"""

from __future__ import annotations

import argparse
import copy
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

MODELS = {"ResNet50": "resnet50", "ResNet152": "resnet152", "DenseNet121": "densenet121"}


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7, help="alternating runs of each")
    parser.add_argument("--memory", metavar="MODEL", help="only the peak memory of one model")
    arguments = parser.parse_args()
    if arguments.memory:
        print(peak_memory(arguments.memory))
        return
    medians: dict[str, float] = {}
    print("model         saikei s  torch-pruning s  keras alone s   saikei / torch-pruning")
    for ours, theirs in MODELS.items():
        runs = alternate(
            [saikei_run(ours), torch_pruning_run(theirs), keras_run(ours)], arguments.runs
        )
        medians[ours], peer, keras_alone = (
            statistics.median(times) for times in zip(*runs, strict=True)
        )
        ratio = statistics.median(times[0] / times[1] for times in runs)
        print(
            f"{ours:12}  {medians[ours]:8.3f}  {peer:15.3f}  {keras_alone:13.3f}   {ratio:.2f}",
            flush=True,
        )
    growth = medians["ResNet152"] / medians["ResNet50"]
    print(f"ResNet152 takes {growth:.2f} times as long as ResNet50, for 2.9 times the layers.")
    for model in MODELS:
        command = [sys.executable, __file__, "--memory", model]
        peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        print(f"{model}: peak memory {peak}, the model itself included")


def alternate(each: list[Callable[[], float]], runs: int) -> list[list[float]]:
    """Seconds of each, run after run; the first of each, which warms up, is left out."""
    for run in each:
        run()
    return [[run() for run in each] for _ in range(runs)]


def saikei_run(name: str) -> Callable[[], float]:
    """Groups, cut and rebuild of a Keras model."""
    import keras

    import saikei as sk

    model = getattr(keras.applications, name)(weights=None)

    def run() -> float:
        gc.collect()
        start = time.perf_counter()
        sk.PruneChannels(keep=0.5, scope="layer")(model)
        return time.perf_counter() - start

    return run


def keras_run(name: str) -> Callable[[], float]:
    """Only the last step, by Keras's own means: the pruned model from its config and weights."""
    import keras

    import saikei as sk

    small = sk.PruneChannels(keep=0.5, scope="layer")(
        getattr(keras.applications, name)(weights=None)
    )
    config, weights = small.get_config(), small.get_weights()

    def run() -> float:
        own = copy.deepcopy(config)  # Keras takes it apart
        gc.collect()
        start = time.perf_counter()
        keras.Model.from_config(own).set_weights(weights)
        return time.perf_counter() - start

    return run


def torch_pruning_run(name: str) -> Callable[[], float]:
    """The same of torchvision's twin; the pruner changes its model, so each run has a new one."""
    import torch
    import torch_pruning

    models = torchvision().models
    image = torch.zeros(1, 3, 224, 224)

    def run() -> float:
        model = getattr(models, name)(weights=None).eval()
        head = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
        gc.collect()
        start = time.perf_counter()
        pruner = torch_pruning.pruner.MagnitudePruner(
            model,
            image,
            importance=torch_pruning.importance.MagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=head,
        )
        pruner.step()
        return time.perf_counter() - start

    return run


def torchvision() -> ModuleType:
    """torchvision, of which the models are needed and the compiled operations are not."""
    try:
        import torchvision
    except RuntimeError:
        # Its compiled part and torch are of different builds.
        sys.modules["torchvision._meta_registrations"] = ModuleType("unused")
        import torchvision
    return torchvision


def peak_memory(name: str) -> str:
    """Peak resident memory of a cut, the model included, against what the model alone takes."""
    import keras

    import saikei as sk

    edit = sk.PruneChannels(keep=0.5, scope="layer")
    edit(keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3)))
    gc.collect()
    before = resident("VmRSS")
    model: Any = getattr(keras.applications, name)(weights=None)
    gc.collect()
    alone = resident("VmRSS") - before
    Path("/proc/self/clear_refs").write_text("5")
    edit(model)
    peak = resident("VmHWM") - before
    weights = sum(weight.value.numpy().nbytes for weight in model.weights)
    return f"{peak / alone:.2f} times the model, {peak / weights:.2f} times its weights"


def resident(field: str) -> int:
    """A field of Linux's process status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
