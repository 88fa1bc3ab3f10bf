"""Trained networks of public packages: read, cut, refitted, distilled and exported, on real inputs.

For each network of `trained_models.py`, against the untouched original:

- *read*: max|Δ| of the model that is built again from the graph that was read;
- *oracle*: a quarter of the channels of each group is silenced, then cut: max|Δ|, for the model as
  its package makes it and as it is loaded from a `.keras` file;
- *cut*, *refitted*, *distilled*: R² of the outputs on inputs that no fit has seen, at half of the
  MACs: cut by magnitude alone; cut with the other half of the inputs as data; then distilled from
  the original on half of those inputs, without labels, where the other half chooses the epoch;
  where no epoch is better, the refitted model stays and the two figures are equal;
- *exported*: max|Δ| of the refitted model's ONNX file in ONNX Runtime, on real inputs.

R² is a share of the variance of the outputs. Where they hardly vary it rests on a few rows: on the
pieces that are measured, asmscan-bilstm gives 0.0008 on average and 0.16 at most, and 5 % of the
rows hold 99 % of the variance.
fer has little to spare and few patches to be fitted to: refitted at 90 % of its MACs R² is 0.99;
at half of them 0.77 on the 100 patches of the fit.

Each network has a process of its own: a crash, a hang or a fault is a row.

    pip install '.[tensorflow,onnx,tried]'
    apt-get install r-cran-mlbench                       # human DNA, for two of the networks
    python benchmarks/tried.py                           # all
    python benchmarks/tried.py fer deepcut               # some
    python benchmarks/tried.py --rows rows.jsonl --markdown docs/tried.md  # all, and the page

With --rows, what that file has already is not measured again, so that a run can go on.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from isolated import command_line, failed, faults, heading, last_json, measure_all, parsed

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow 2.21 crashes in the gradient of a strided 1×1 convolution with oneDNN.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

COLUMNS = {
    "network": "network",
    "params": "parameters",
    "macs": "MACs",
    "free": "channels that can be cut",
    "read": "read",
    "oracle": "oracle",
    "oracle_loaded": "oracle, loaded",
    "kept": "MACs left",
    "cut": "R² cut",
    "refitted": "refitted",
    "distilled": "distilled",
    "exported": "exported",
}
EXACT = 1e-5
# Relative to the largest output; a file runs other kernels in another order.
EXPORTED = 1e-3


def main() -> None:
    """Measure each network in a process of its own, and print a table."""
    parser = command_line("networks", __doc__.splitlines()[0])
    cache = Path.home() / ".cache/saikei-tried"
    parser.add_argument("--packages", type=Path, default=cache, help="where packages are kept")
    arguments = parsed(parser, "networks")
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.packages)))
        return
    from trained_models import MODELS

    unknown = sorted(set(arguments.networks) - set(MODELS))
    if unknown:
        raise SystemExit(f"No network is called {unknown[0]!r}; there are {', '.join(MODELS)}.")
    names, options = arguments.networks or [*MODELS], ["--packages", str(arguments.packages)]
    rows = measure_all(__file__, names, arguments, COLUMNS, line, options)
    if arguments.markdown:
        arguments.markdown.write_text(document(rows), encoding="utf-8")
    sys.exit(any("fault" in row for row in rows))


def measure(name: str, packages: Path) -> dict[str, Any]:
    """All figures of one network."""
    import keras
    from trained_models import MODELS, Packages

    import saikei as sk
    from saikei.errors import PinnedWarning
    from saikei.graph import build, read

    keras.utils.set_random_seed(0)
    trained = MODELS[name]
    packages.mkdir(parents=True, exist_ok=True)
    model, x = trained.load(Packages(packages, trained.package))
    fitted, held_out = halves(x)
    wanted = outputs(model, held_out)
    rebuilt = build(read(model))
    row: dict[str, Any] = {"read": distance(outputs(rebuilt, held_out), wanted)}
    # What comes from a package may be a subclassed model, whose class a file would need.
    loaded = reloaded(rebuilt)
    row |= {"oracle": oracle(model, held_out), "oracle_loaded": oracle(loaded, held_out)}
    shape = sample_shape(rebuilt, held_out)
    before = sk.profile(model, latency=False, input_shape=shape)
    groups = sk.channel_groups(model)
    row |= {
        "params": before.params,
        "macs": before.macs,
        "channels": sum(group.size for group in groups),
        "free": sum(int(group.free.sum()) for group in groups),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PinnedWarning)
        budget = sk.Budget(macs=0.5)
        plain = sk.PruneChannels(budget, compensate=False, importance="magnitude")
        small = sk.PruneChannels(budget)(loaded, (fitted,))
        row["cut"] = explained(outputs(plain(loaded, (fitted,)), held_out), wanted)
    row["kept"] = sk.profile(small, latency=False, input_shape=shape).macs / before.macs
    row["refitted"] = explained(outputs(small, held_out), wanted)
    row["exported"] = exported(small, held_out)
    learned, chosen = halves(fitted)
    sk.distill(small, loaded, (learned,), (chosen,), epochs=5, batch_size=16, progress=False)
    row["distilled"] = explained(outputs(small, held_out), wanted)
    return row | faults(wrong(row))


def sample_shape(model: Any, x: Any) -> Any:
    """The shape of a sample where the model leaves the size of an axis open; `None` elsewhere."""
    import keras

    if all(None not in tensor.shape[1:] for tensor in model.inputs):
        return None
    shapes = [array.shape[1:] for array in keras.tree.flatten(x)]
    if len(shapes) == 1:
        return shapes[0]
    return {tensor.name: shape for tensor, shape in zip(model.inputs, shapes, strict=True)}


def halves(x: Any) -> tuple[Any, Any]:
    """Inputs for fitting, and inputs for measuring."""
    import keras

    count = len(keras.tree.flatten(x)[0]) // 2
    first = keras.tree.map_structure(lambda a: a[:count], x)
    return first, keras.tree.map_structure(lambda a: a[count:], x)


def outputs(model: Any, x: Any) -> list[Any]:
    """What a model predicts, as float64."""
    import keras

    found = keras.tree.flatten(model.predict(x, batch_size=16, verbose=0))
    return [output.astype("float64") for output in found]


def distance(given: list[Any], wanted: list[Any]) -> float:
    """Largest difference relative to the largest output."""
    pairs = zip(given, wanted, strict=True)
    return max(float(abs(a - b).max() / abs(b).max()) for a, b in pairs)


def explained(given: list[Any], wanted: list[Any]) -> float:
    """R² over samples, all positions of an output together; the mean over outputs."""
    scores = []
    for a, b in zip(given, wanted, strict=True):
        scores.append(1 - ((a - b) ** 2).sum() / ((b - b.mean(0)) ** 2).sum())
    return float(sum(scores) / len(scores))


def oracle(model: Any, x: Any) -> float:
    """The error of cutting channels that are silent, on real inputs."""
    import keras

    from saikei.testing import check_cut

    few = keras.tree.map_structure(lambda a: a[:8], x)
    return check_cut(model, readers=True, inputs=few).error


def reloaded(model: Any) -> Any:
    """The model as it comes back from a file."""
    import keras

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        model.save(path)
        return keras.models.load_model(path)


def exported(model: Any, x: Any) -> float | str:
    """The error of a model's ONNX file in its own runtime, on real inputs, or why there is none."""
    import keras
    import numpy as np

    flat = [array[:4] for array in keras.tree.flatten(x)]
    names = [f"x_test.{tensor.name}" for tensor in model.inputs] if len(flat) > 1 else ["x_test"]
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "model.keras"))
        np.savez(Path(folder, "data.npz"), **dict(zip(names, flat, strict=True)))
        command = [sys.executable, "-c", EXPORT, str(Path(__file__).parent)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
    return float(last_json(done.stdout)["max_difference"])


# The command line, in a process that knows the networks' own functions.
EXPORT = """
import sys
sys.path.insert(0, sys.argv[1])
import trained_models
from saikei.cli import main
options = ["--format", "onnx", "--data", "data.npz", "--out", "model.onnx", "--json"]
sys.argv[1:] = ["export", "model.keras", *options]
sys.exit(main())
"""


def wrong(row: dict[str, Any]) -> dict[str, bool]:
    """What may be wrong with the figures of a network, and whether it is."""
    file = row["exported"]
    return {
        f"read {row['read']:.1e}": row["read"] > EXACT,
        f"oracle {row['oracle']:.1e}": row["oracle"] > EXACT,
        f"oracle of the loaded model {row['oracle_loaded']:.1e}": row["oracle_loaded"] > EXACT,
        f"{row['kept']:.1%} of the MACs are left": row["kept"] > 0.5,
        f"export: {file}": isinstance(file, str) or file > EXPORTED,
    }


def line(row: dict[str, Any]) -> str:
    """One line of the table: the figures, or why there are none."""
    if "params" not in row:
        return failed(row, COLUMNS)
    file = row["exported"]
    shown = row | {
        "network": row["network"] + (f" **failed**: {row['fault']}" if "fault" in row else ""),
        "params": f"{row['params']:,}",
        "macs": f"{row['macs']:,}",
        "free": f"{row['free']} of {row['channels']}",
        "kept": f"{row['kept']:.1%}",
        "exported": "no" if isinstance(file, str) else f"{file:.0e}",
    }
    shown |= {key: f"{row[key]:.0e}" for key in ("read", "oracle", "oracle_loaded")}
    shown |= {key: f"{row[key]:.4f}" for key in ("cut", "refitted", "distilled")}
    return f"| {' | '.join(str(shown[column]) for column in COLUMNS)} |"


def document(rows: list[dict[str, Any]]) -> str:
    """The page of the documentation."""
    import keras
    from trained_models import MODELS

    faulty = [row["network"] for row in rows if "fault" in row]
    sources = "\n".join(
        f"| {name} | `{each.package}` | {(each.load.__doc__ or '').strip()} | {each.inputs} |"
        for name, each in MODELS.items()
    )
    measured = {row["network"] for row in rows}
    missing = [name for name in MODELS if name not in measured]
    rest = f"\n\nNot measured yet: {', '.join(missing)}." if missing else ""
    verdict = f"{len(faulty)} fail: {', '.join(faulty)}." if faulty else "None fails."
    return f"""# Trained networks of public packages

What Saikei does with networks that others trained. Measured by

```sh
python benchmarks/tried.py --rows rows.jsonl --markdown docs/tried.md
```

with Keras {keras.__version__} ({keras.config.backend()}) and Python {platform.python_version()} on
{os.cpu_count()} cores. The packages are downloaded by the script and only read; none of their files
is kept here. Rows that `rows.jsonl` has already are not measured again.{rest}

{chr(10).join([*heading(COLUMNS), *map(line, rows)])}

{(__doc__ or "").split(chr(10), 4)[4].split("    pip install", maxsplit=1)[0].strip()}

A network fails where reading or an oracle is off by more than {EXACT:.0e} of the largest output,
where more than half of the MACs is left, or where the ONNX file is not written or is off by more
than {EXPORTED:.0e}. {verdict}

## The networks and their inputs

| network | package | what it is | inputs; half fit, half measure |
| --- | --- | --- | --- |
{sources}
"""


if __name__ == "__main__":
    main()
