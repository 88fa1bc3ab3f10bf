"""Time to find the channel groups, prune and rebuild: Saikei against Torch-Pruning.

Both cut the same networks (Keras's and torchvision's at 224 × 224, and the ViT of KerasHub) to half
of the channels of each layer by weight magnitude, from a trained model in memory to a model that
can be called. A Llama of 125 million parameters of KerasHub is cut by Saikei alone. Seconds are
those of the CPU, so that other programs hardly count, and runs alternate. Then the memory that each
takes at its peak, in a process of its own.

    pip install '.[tensorflow,kerashub,benchmarks]'
    python benchmarks/pruning_speed.py
    python benchmarks/pruning_speed.py ResNet50 DenseNet121 --runs 3
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from isolated import last_json
from record import record

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# The names of the same network in torchvision; "" where it has none.
MODELS = {
    "ResNet50": "resnet50",
    "ResNet101": "resnet101",
    "ResNet152": "resnet152",
    "MobileNetV2": "mobilenet_v2",
    "DenseNet121": "densenet121",
    "ViT": "vit_b_16",
    "Llama": "",
}
COLUMNS = ("model", "Saikei", "Torch-Pruning", "ratio", "Keras alone", "ratio", "peak memory")


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=[*MODELS], choices=MODELS, metavar="MODEL")
    parser.add_argument("--runs", type=int, default=7, help="alternating runs of each")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print(json.dumps(peak_memory(*arguments.models)))
        return
    rows = []
    for name in arguments.models:
        rows.append({"model": name, **timed(name, arguments.runs)})
        command = [sys.executable, __file__, name, "--memory"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows[-1] |= last_json(done.stdout)
        print(rows[-1], flush=True)
    settings = {"runs": arguments.runs}
    if exponent := growth(rows):
        settings["exponent_over_layers_of_resnets"] = exponent
    record("surgery", rows, COLUMNS, map(line, rows), **settings)


def timed(name: str, runs: int) -> dict[str, float]:
    """Seconds of each, and ratios of runs that were made by turns."""
    each = {"ours": saikei_run(name), "keras": keras_run(name)}
    if MODELS[name]:
        each["peer"] = torch_pruning_run(MODELS[name])
    times = dict(zip(each, zip(*alternate([*each.values()], runs), strict=True), strict=True))
    found = {key: statistics.median(seconds) for key, seconds in times.items()}
    for key in each.keys() - {"ours"}:
        pairs = zip(times["ours"], times[key], strict=True)
        found[f"over_{key}"] = statistics.median(mine / other for mine, other in pairs)
    return found


def growth(rows: list[dict[str, Any]]) -> float | None:
    """The slope of the logarithm of time over that of layers; `None` without two ResNets."""
    import numpy as np

    resnets = [row for row in rows if row["model"].startswith("ResNet")]
    if len(resnets) < 2:
        return None
    depths = [int(row["model"].removeprefix("ResNet")) for row in resnets]
    times = [row["ours"] for row in resnets]
    return round(float(np.polyfit(np.log(depths), np.log(times), 1)[0]), 2)


def line(row: dict[str, Any]) -> list[str]:
    """A line of the table."""
    peer = [f"{row['peer']:.2f} s", f"{row['over_peer']:.2f}"] if "peer" in row else ["", ""]
    alone = f"{row['keras']:.2f} s", f"{row['over_keras']:.2f}"
    memory = f"{row['memory_over_weights']:.2f} × the weights"
    return [row["model"], f"{row['ours']:.2f} s", *peer, *alone, memory]


def keras_model(name: str) -> Any:
    """A network with random weights."""
    import keras

    if name == "Llama":
        import keras_hub

        return keras_hub.models.LlamaBackbone(
            vocabulary_size=32_000,
            num_layers=12,
            num_query_heads=12,
            hidden_dim=768,
            intermediate_dim=2048,
            num_key_value_heads=12,
        )
    if name == "ViT":
        import keras_hub

        backbone = keras_hub.models.ViTBackbone(
            image_shape=(224, 224, 3),
            patch_size=16,
            num_layers=12,
            num_heads=12,
            hidden_dim=768,
            mlp_dim=3072,
        )
        return keras_hub.models.ViTImageClassifier(backbone=backbone, num_classes=1000)
    return getattr(keras.applications, name)(weights=None)


def alternate(each: list[Callable[[], float]], runs: int) -> list[list[float]]:
    """Seconds of each, run after run; the first of each, which warms up, is left out."""
    for run in each:
        run()
    return [[run() for run in each] for _ in range(runs)]


def saikei_run(name: str) -> Callable[[], float]:
    """Groups, cut and rebuild of a Keras model."""
    import saikei as sk

    model = keras_model(name)

    def run() -> float:
        gc.collect()
        start = time.process_time()
        sk.PruneChannels(keep=0.5, scope="layer")(model)
        return time.process_time() - start

    return run


def keras_run(name: str) -> Callable[[], float]:
    """Only the last step, by Keras's own means: the pruned model from its config and weights."""
    import keras

    import saikei as sk

    small = sk.PruneChannels(keep=0.5, scope="layer")(keras_model(name))
    config, weights = small.get_config(), small.get_weights()

    def run() -> float:
        own = copy.deepcopy(config)  # Keras takes it apart
        gc.collect()
        start = time.process_time()
        keras.Model.from_config(own).set_weights(weights)
        return time.process_time() - start

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
        start = time.process_time()
        pruner = torch_pruning.pruner.MagnitudePruner(
            model,
            image,
            importance=torch_pruning.importance.MagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=head,
        )
        pruner.step()
        return time.process_time() - start

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


def peak_memory(name: str) -> dict[str, float]:
    """Peak resident memory of a cut, the model included, against what the model alone takes."""
    import keras

    import saikei as sk

    edit = sk.PruneChannels(keep=0.5, scope="layer")
    edit(keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3)))
    gc.collect()
    before = resident("VmRSS")
    model = keras_model(name)
    gc.collect()
    alone = resident("VmRSS") - before
    Path("/proc/self/clear_refs").write_text("5")
    edit(model)
    peak = resident("VmHWM") - before
    weights = sum(weight.value.numpy().nbytes for weight in model.weights)
    return {"memory": peak / alone, "memory_over_weights": peak / weights}


def resident(field: str) -> int:
    """A field of Linux's process status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
