"""How much of what a cut saves in MACs arrives as time, in three runtimes.

A network is cut to a quarter of its MACs with multiples of 1, 8 and 16 channels. Each cut one and
the whole one run by turns in Keras (`predict_on_batch`), ONNX Runtime and LiteRT, in batches of 1
and 32, in float32 and, where the runtime has it, int8. The share is the ratio of times divided by
the ratio of MACs, for the multiple that is the fastest there. Files in int8 are compared with the
whole network in float32; there the ratio of MACs counts twice. Weights are random, since time does
not depend on them.

By default each runtime has one thread and its CPU time counts, which other programs hardly change.
With more threads it is the time that passes, for which the machine has to be idle. Models that were
measured before and are not named keep their rows.

    pip install '.[tensorflow,onnx,int8]'
    python benchmarks/speedup.py ResNet50
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from record import record, recorded

import saikei as sk
from saikei.exporting import export_int8, export_model

SHARE = 0.25
BATCHES = (1, 32)
COLUMNS = ("runtime", "batch", "multiple of", "MACs", "times as fast", "share")
Run = Callable[[np.ndarray], object]


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["ResNet50"], help="of keras.applications")
    parser.add_argument("--size", type=int, default=224, help="of the images, in pixels")
    parser.add_argument("--runs", type=int, default=7, help="alternating runs of each")
    parser.add_argument("--multiples", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--threads", type=int, default=1, help="of each runtime")
    arguments = parser.parse_args()
    threads = arguments.threads
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    rows = [row for row in recorded("speedup") if row["model"] not in arguments.models]
    for name in arguments.models:
        for row in measured(name, arguments, clock):
            print({key: row[key] for key in ("runtime", "batch", "multiple", "share")}, flush=True)
            rows.append({"model": name, **row})
    settings = {"pixels": arguments.size, "runs": arguments.runs, "threads": threads}
    record("speedup", rows, ("model", *COLUMNS), map(line, fastest(rows)), **settings)


def measured(
    name: str, arguments: argparse.Namespace, clock: Callable[[], float]
) -> Iterator[dict[str, Any]]:
    """A row for each multiple, runtime and batch."""
    threads = arguments.threads
    shape = (arguments.size, arguments.size, 3)
    whole = getattr(keras.applications, name)(weights=None, input_shape=shape)
    full = sk.profile(whole, latency=False).macs
    x = np.random.default_rng(0).random((max(BATCHES), *shape), dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        original = opened(whole, Path(folder), "whole", x, threads)
        for multiple in arguments.multiples:
            edit = sk.PruneChannels(sk.Budget(macs=SHARE), scope="layer", multiple_of=multiple)
            small = edit(whole)
            macs = full / sk.profile(small, latency=False).macs
            runs = opened(small, Path(folder), f"cut_{multiple}", x, threads)
            for runtime, run in runs.items():
                # int8 files against the whole network in float32 of the same runtime.
                other = original[runtime.removesuffix(", int8")]
                for batch in BATCHES:
                    ratio = faster(run, other, x[:batch], arguments.runs, clock)
                    ideal = macs * (2 if "int8" in runtime else 1)
                    yield {
                        "runtime": runtime,
                        "batch": batch,
                        "multiple": multiple,
                        "macs": macs,
                        "ratio": ratio,
                        "share": ratio / ideal,
                    }


def opened(
    model: keras.Model, folder: Path, name: str, x: np.ndarray, threads: int
) -> dict[str, Run]:
    """A model in each runtime and precision."""
    onnx, litert = folder / f"{name}.onnx", folder / f"{name}.tflite"
    export_model(model, onnx, "onnx", x[:1])
    export_model(model, litert, "litert", x[:1])
    quantized = folder / f"{name}_int8.onnx", folder / f"{name}_int8.tflite"
    quantize_onnx(onnx, quantized[0], x[:4])
    export_int8(model, quantized[1], x[:4])
    return {
        "Keras": lambda rows: model.predict_on_batch(rows),
        "ONNX Runtime": by_onnxruntime(onnx, threads),
        "ONNX Runtime, int8": by_onnxruntime(quantized[0], threads),
        "LiteRT": by_litert(litert, threads),
        "LiteRT, int8": by_litert(quantized[1], threads),
    }


def by_onnxruntime(path: Path, threads: int) -> Run:
    """An ONNX file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    return lambda rows: session.run(None, {taken.name: rows})


def quantize_onnx(path: Path, target: Path, x: np.ndarray) -> None:
    """ONNX Runtime's own static quantisation, one scale for each channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        """Samples one by one."""

        def __init__(self, name: str) -> None:
            self.samples = iter([{name: x[n : n + 1]} for n in range(len(x))])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.samples, None)

    import onnxruntime

    (taken,) = onnxruntime.InferenceSession(str(path)).get_inputs()
    ready = path.with_suffix(".ready.onnx")
    quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
    quantize_static(
        str(ready),
        str(target),
        Reader(taken.name),
        per_channel=True,
        # Otherwise sums of two products may overflow where the processor has no VNNI.
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )


def by_litert(path: Path, threads: int) -> Run:
    """A LiteRT file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(str(path), num_threads=threads)
    taken = interpreter.get_input_details()[0]["index"]
    shapes: list[tuple[int, ...]] = []

    def run(rows: np.ndarray) -> object:
        if shapes != [rows.shape]:
            interpreter.resize_tensor_input(taken, rows.shape)
            interpreter.allocate_tensors()
            shapes[:] = [rows.shape]
        interpreter.set_tensor(taken, rows)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    return run


def faster(ours: Run, other: Run, x: np.ndarray, runs: int, clock: Callable[[], float]) -> float:
    """How many times as fast, by turns; the first run of each, which warms up, does not count."""
    calls = max(1, 8 // len(x))  # of a short call several at once

    def seconds(run: Run) -> float:
        start = clock()
        for _ in range(calls):
            run(x)
        return clock() - start

    pairs = [(seconds(ours), seconds(other)) for _ in range(runs + 1)][1:]
    return statistics.median(theirs / mine for mine, theirs in pairs)


def fastest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each model, runtime and batch the multiple with the largest ratio of times."""
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = row["model"], row["runtime"], row["batch"]
        if key not in best or row["ratio"] > best[key]["ratio"]:
            best[key] = row
    return [*best.values()]


def line(row: dict[str, Any]) -> list[str]:
    """A line of the table."""
    return [
        row["model"],
        row["runtime"],
        str(row["batch"]),
        str(row["multiple"]),
        f"1 / {row['macs']:.2f}",
        f"{row['ratio']:.2f}",
        f"{row['share']:.2f}",
    ]


if __name__ == "__main__":
    main()
