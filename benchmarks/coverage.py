"""Which architectures can be pruned: every constructor of keras.applications, and KerasHub's.

For each model, at random weights and a small input: its layers and channel groups, what is
pinned and why, the seconds to find the groups and to prune, and the oracle's max|Δ| (a quarter
of the channels is silenced, then cut; the outputs are compared, relative to the largest). Then
half of the channels of each group are cut, the model is saved, loaded by a process in which
Saikei cannot be imported, and has to predict there what it predicts here.

Each model has a process of its own, one at a time: a crash, a hang or a fault is a row.

    pip install '.[tensorflow,kerashub]'
    python benchmarks/coverage.py                      # all, from small to large
    python benchmarks/coverage.py ResNet50 MobileNet   # some
    python benchmarks/coverage.py --rows rows.jsonl --markdown docs/coverage.md

With --rows, what that file has already is not measured again, so that a run can go on.
"""

from __future__ import annotations

import inspect
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isolated import cell, command_line, failed, faults, heading, measure_all, parsed
from record import record

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The tests' configurations of backbones.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# Every constructor of keras.applications, from small to large; see `check_names`.
APPLICATIONS = (
    *("MobileNetV3Small", "MobileNetV2", "MobileNet", "EfficientNetB0", "NASNetMobile"),
    *("MobileNetV3Large", "EfficientNetV2B0", "DenseNet121", "EfficientNetB1", "EfficientNetV2B1"),
    *("EfficientNetB2", "EfficientNetV2B2", "EfficientNetB3", "DenseNet169", "EfficientNetV2B3"),
    *("DenseNet201", "EfficientNetB4", "EfficientNetV2S", "Xception", "InceptionV3", "ResNet50"),
    *("ResNet50V2", "ConvNeXtTiny", "EfficientNetB5", "VGG16", "VGG19", "EfficientNetB6"),
    *("ResNet101", "ResNet101V2", "ConvNeXtSmall", "EfficientNetV2M", "InceptionResNetV2"),
    *("ResNet152", "ResNet152V2", "EfficientNetB7", "NASNetLarge", "ConvNeXtBase"),
    *("EfficientNetV2L", "ConvNeXtLarge", "ConvNeXtXLarge"),
)
# The smallest inputs that these networks take; the others get 64 pixels.
SIDES = {"Xception": 71, "InceptionV3": 75, "InceptionResNetV2": 75}
COLUMNS = {
    "model": "model",
    "layers": "layers",
    "groups": "groups",
    "free": "channels that can be cut",
    "params": "parameters left",
    "macs": "MACs left",
    "find": "groups s",
    "prune": "prune s",
    "error": "max\\|Δ\\|",
    "loaded": "loaded Δ",
    "pinned": "pinned, and why",
}
# Relative to the largest output; and what outputs have to differ by between samples, so that
# an error could show.
TOLERANCE, SPREAD = 1e-5, 1e-3

REPLAY = """
import json, sys
sys.modules["saikei"] = None  # an import of it fails
import keras, numpy
for module in sys.argv[1:]: __import__(module)
model = keras.models.load_model("model.keras")
batch = dict(numpy.load("batch.npz"))
inputs = [batch[f"x{i}"] for i in range(len(model.inputs))]
given = keras.tree.pack_sequence_as(model.input, inputs)
outputs = keras.tree.flatten(model.predict(given, verbose=0))
pairs = [(y, batch[f"y{i}"]) for i, y in enumerate(outputs)]
assert len(pairs) == sum(name.startswith("y") for name in batch)
worst = max(float(abs(y - x).max() / max(abs(x).max(), 1e-30)) for x, y in pairs)
print(json.dumps(worst))
"""


def main() -> None:
    """Measure each model in a process of its own, and print a table."""
    arguments = parsed(command_line("models", __doc__.splitlines()[0]), "models")
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    names = arguments.models or [*check_names(), *backbones()]
    rows = measure_all(__file__, names, arguments, COLUMNS, line)
    record("coverage", rows, ("models", "number", "cut right"), summary(rows))
    if arguments.markdown:
        arguments.markdown.write_text(document(rows), encoding="utf-8")
    sys.exit(any("fault" in row for row in rows))


def summary(rows: list[dict[str, Any]]) -> list[list[str]]:
    """How many of each kind pass."""
    parts = {"keras.applications": True, "backbones of KerasHub": False}
    found = []
    for name, own in parts.items():
        faulty = ["fault" in row for row in rows if (row["model"] in APPLICATIONS) is own]
        found.append([name, str(len(faulty)), str(faulty.count(False))])
    return found


def check_names() -> tuple[str, ...]:
    """The constructors of keras.applications, which have to be those that are listed above."""
    import keras

    def constructors(module: Any) -> set[str]:
        found = vars(module).items()
        return {name for name, value in found if inspect.isfunction(value) and name[0].isupper()}

    modules = [m for m in vars(keras.applications).values() if inspect.ismodule(m)]
    found = constructors(keras.applications).union(*map(constructors, modules))
    if found != set(APPLICATIONS):
        raise SystemExit(
            f"keras.applications of Keras {keras.__version__} has {len(found)} constructors and "
            f"{len(APPLICATIONS)} are listed: {sorted(found ^ set(APPLICATIONS))} differ."
        )
    return APPLICATIONS


def backbones() -> dict[str, Any]:
    """KerasHub's backbones, small and at random weights; the tests' configurations."""
    try:
        from tests.hub.backbones import BACKBONES, MORE
    except ImportError as error:
        raise SystemExit(f"{error}: pip install 'saikei[kerashub]', or name models.") from error
    return {**BACKBONES, **MORE}


def measure(name: str) -> dict[str, Any]:
    """All figures of one model."""
    import keras
    import numpy as np

    import saikei as sk
    from saikei.channels import map_channels
    from saikei.graph import read
    from saikei.testing import check_cut, random_inputs

    keras.utils.set_random_seed(0)
    model = construct(name)
    costs = sk.profile(model, latency=False)
    start = time.perf_counter()
    groups = sk.channel_groups(model)
    found = time.perf_counter()
    half = sk.PruneChannels(keep=0.5, scope="layer")(model)
    pruned = time.perf_counter()
    small = sk.profile(half, latency=False)
    hub = name not in APPLICATIONS
    # In a transformer 0 is nothing special: what reads the channels is silenced as well.
    check = check_cut(model, readers=hub)
    batch = random_inputs(half, np.random.default_rng(0))
    loaded = replay(half, batch, ["keras_hub"] * hub)
    channel_map = map_channels(read(model))
    row = {
        "layers": len(channel_map.graph.operations),
        "groups": len(groups),
        "channels": sum(group.size for group in groups),
        "free": sum(int(group.free.sum()) for group in groups),
        "params": small.params / costs.params,
        "macs": small.macs / costs.macs,
        "uncounted": list(costs.uncounted),
        "find": found - start,
        "prune": pruned - found,
        "error": check.error,
        "spread": check.spread,
        "loaded": loaded,
        "pinned": pinned(groups, channel_map.reasons),
        "unknown": list(channel_map.unknown.values()),
    }
    return row | faults(wrong(row, check.cut))


def wrong(row: dict[str, Any], cut: int) -> dict[str, bool]:
    """What may be wrong with the figures of a model, and whether it is."""
    return {
        f"oracle {row['error']:.1e}": row["error"] > TOLERANCE,
        f"loaded elsewhere {row['loaded']:.1e}": row["loaded"] > TOLERANCE,
        f"spread of the outputs {row['spread']:.1e}": not row["spread"] > SPREAD,
        "the oracle cut nothing": cut == 0,
        "half of the channels left as many parameters": not row["params"] < 1,
    }


def pinned(groups: Sequence[Any], reasons: dict[int, str]) -> dict[str, dict[str, int]]:
    """For each reason, how many channels of which groups it pins."""
    found: dict[str, Counter[str]] = {}
    for group in groups:
        for channel in group.channels[~group.free]:
            found.setdefault(reasons[int(channel)], Counter())[group.name] += 1
    return {reason: dict(counts) for reason, counts in found.items()}


def construct(name: str) -> Any:
    """A model at random weights, with a small input and outputs that depend on it."""
    import keras

    from saikei.testing import randomise_statistics

    if name not in APPLICATIONS:
        from tests.hub.backbones import made

        model = made(name)
        randomise_statistics(model)
        return model
    side = SIDES.get(name, 64)
    # Logits: behind a softmax that is saturated every cut would look exact.
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(side, side, 3), classes=10, classifier_activation=None
    )
    randomise_statistics(model)
    return model


def replay(model: Any, batch: Any, modules: list[str]) -> float:
    """Largest relative difference of a prediction in a process with Keras and some modules."""
    import keras
    import numpy as np

    outputs = keras.tree.flatten(model.predict(batch, verbose=0))
    arrays = {f"x{i}": x for i, x in enumerate(keras.tree.flatten(batch))}
    arrays |= {f"y{i}": y for i, y in enumerate(outputs)}
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "model.keras"))
        np.savez(Path(folder, "batch.npz"), **arrays)
        command = [sys.executable, "-c", REPLAY, *modules]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"loading elsewhere: {done.stderr.strip().splitlines()[-1]}")
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


def line(row: dict[str, Any]) -> str:
    """One line of the table: the figures, or why there are none."""
    if "layers" not in row:
        return failed(row, COLUMNS)
    shown = row | {
        "model": row["model"] + (f" **failed**: {row['fault']}" if "fault" in row else ""),
        "free": f"{row['free']} of {row['channels']}",
        "params": f"{row['params']:.0%}",
        "macs": f"{row['macs']:.0%}",
        "find": f"{row['find']:.2f}",
        "prune": f"{row['prune']:.2f}",
        "error": f"{row['error']:.0e}",
        "loaded": f"{row['loaded']:.0e}",
        "pinned": "; ".join(_reason(*item) for item in row["pinned"].items()),
    }
    return f"| {' | '.join(str(shown[column]) for column in COLUMNS)} |"


def _reason(reason: str, counts: dict[str, int]) -> str:
    names = ", ".join(list(counts)[:2]) + (f" and {len(counts) - 2} more" * (len(counts) > 2))
    return cell(f"{sum(counts.values())} of {names}: {reason}")


def document(rows: list[dict[str, Any]]) -> str:
    """The page of the documentation."""
    import keras
    import keras_hub

    loads = [row["load"] for row in rows]
    faulty = [row["model"] for row in rows if "fault" in row]
    text = f"""# Which architectures can be pruned

All {len(APPLICATIONS)} constructors of `keras.applications` and {len(rows) - len(APPLICATIONS)}
backbones of KerasHub, with random weights and small inputs. Measured by

```sh
python benchmarks/coverage.py --rows rows.jsonl --markdown docs/coverage.md
```

with Keras {keras.__version__} ({keras.backend.backend()}), KerasHub {keras_hub.__version__} and
Python {platform.python_version()} on {os.cpu_count()} cores whose load average was between
{min(loads):.1f} and {max(loads):.1f} while it ran: {_business(loads)}.
Each model is a row of `rows.jsonl`; rows that are there are not measured again, and those whose
rules had changed since were deleted and measured anew.

- *channels that can be cut*: free channels of all channels of the groups.
- *parameters left*, *MACs left*: of a model that keeps half of the channels of each group.
- *groups s*, *prune s*: seconds to find the channel groups, and to cut half of the channels and
  rebuild the model, once, without a warm-up.
- *max|Δ|*: a quarter of the channels of each group is silenced, and then cut; the largest
  difference of an output, relative to its largest value, in float32.
- *loaded Δ*: the same for the halved model after saving it, loading it in a process in which
  Saikei cannot be imported, and predicting there.
- *pinned*: how many channels of which groups stay, and why. Channels of a model output stay
  always; so do positions and tokens, which are looked up by index, and axes that a constant has.

A row fails where a step fails, where a Δ is above {TOLERANCE:.0e}, where the outputs do not depend
on the inputs, or where nothing can be cut;
it passes otherwise. {_verdict(faulty, len(rows))}
"""
    parts = (("keras.applications", True), ("KerasHub", False))
    for title, own in parts:
        chosen = [line(row) for row in rows if (row["model"] in APPLICATIONS) is own]
        text += "\n".join([f"\n## {title}\n", *heading(COLUMNS), *chosen]) + "\n"
    return text


def _business(loads: list[float]) -> str:
    cores = os.cpu_count() or 1
    busy = sum(load > cores for load in loads) > len(loads) / 2
    return "a busy machine, so the seconds are too many" if busy else "a machine with little else"


def _verdict(faulty: list[str], count: int) -> str:
    names = ", ".join(faulty)
    return f"{len(faulty)} of {count} fail: {names}." if faulty else f"All {count} pass."


if __name__ == "__main__":
    main()
