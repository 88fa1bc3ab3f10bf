"""Merging files of weights: Saikei against mergekit, and against reading and writing the bytes.

Four members and their base, float32, each of the same tensors. Both merge the same `.safetensors`
files, linear and by TIES, each run in a process of its own, to a file that is not there yet. The
merge is timed without the imports, in seconds of the CPU and in seconds that pass. "Copy" reads
all bytes of the members in large pieces and writes as many as the result has. Files are in the page
cache when they have been written, for all alike. Memory is the peak of the process beyond what it
held before, mapped pages of files included.

    pip install '.[tensorflow,benchmarks]'
    python benchmarks/merging.py --megabytes 512
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from isolated import last_json
from pruning_speed import torchvision
from record import record

MEMBERS = 4
PIECE = 1 << 26
OUTPUTS = ("saikei.safetensors", "mergekit", "copy.bin")


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=512, help="size of each member")
    parser.add_argument("--tensor", type=int, default=64, help="size of each tensor, megabytes")
    parser.add_argument("--runs", type=int, default=3, help="alternating runs of each")
    parser.add_argument("--methods", nargs="+", default=["linear", "ties"])
    parser.add_argument("--peers", nargs="+", default=["mergekit", "copy"])
    parser.add_argument("--folder", type=Path, help="where to write; a temporary one otherwise")
    parser.add_argument("--child", nargs=2, metavar=("WHO", "METHOD"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child, arguments.folder)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        write_members(Path(folder), arguments.megabytes, arguments.tensor)
        rows = [
            row for method in arguments.methods for row in compare(method, Path(folder), arguments)
        ]
    settings = {"megabytes": arguments.megabytes, "tensor": arguments.tensor}
    record("merging", rows, COLUMNS, lines(rows), runs=arguments.runs, **settings)


def compare(method: str, folder: Path, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Time all on the same files, run after run."""
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(arguments.runs):
        for who in ("saikei", *arguments.peers):
            runs.setdefault(who, []).append(measured(who, method, folder))
    for who, each in runs.items():
        row: dict[str, Any] = {"method": method, "who": who}
        for clock in ("cpu", "seconds"):
            ours, theirs = ([run[clock] for run in one] for one in (runs["saikei"], each))
            row[clock] = statistics.median(theirs)
            row[f"{clock}_ratio"] = statistics.median(
                b / a for a, b in zip(ours, theirs, strict=True)
            )
        yield {**row, "megabytes": max(run["megabytes"] for run in each)}


COLUMNS = ("method, who", "CPU", "times ours", "time that passes", "times ours", "peak memory")


def lines(rows: list[dict[str, Any]]) -> Iterator[list[str]]:
    """Lines of the table."""
    for row in rows:
        yield [
            f"{row['method']}, {row['who']}",
            f"{row['cpu']:.2f} s",
            f"{row['cpu_ratio']:.2f}",
            f"{row['seconds']:.2f} s",
            f"{row['seconds_ratio']:.2f}",
            f"{row['megabytes']:.0f} MB",
        ]


def measured(who: str, method: str, folder: Path) -> dict[str, float]:
    """One run in a process of its own."""
    command = [sys.executable, __file__, "--folder", str(folder), "--child", who, method]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    for name in OUTPUTS:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).unlink(missing_ok=True)
    # What was written is on its way to the disk: the next must not wait for it.
    os.sync()
    return last_json(done.stdout)


def child(who: str, method: str, folder: Path) -> None:
    """Merge once, and print seconds and megabytes."""
    run = {"saikei": with_saikei, "mergekit": with_mergekit, "copy": with_copy}[who](method, folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    run()
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"cpu": cpu, "seconds": seconds, "megabytes": (after - before) / 1024}))


def with_saikei(method: str, folder: Path) -> Callable[[], Any]:
    """Our merge."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from saikei.merging import Ties, merge_files

    paths, base = members_in(folder)
    out = folder / OUTPUTS[0]
    if method == "linear":
        return lambda: merge_files(paths, out)
    return lambda: merge_files(paths, out, Ties(0.2), base=base)


def with_mergekit(method: str, folder: Path) -> Callable[[], Any]:
    """Its merge of plain tensors, as its `mergekit-pytorch` does it."""
    torchvision()  # Transformers imports it where it is installed
    from mergekit.graph import Executor
    from mergekit.options import MergeOptions
    from mergekit.scripts.merge_raw_pytorch import RawPyTorchMergeConfig, plan_flat_merge

    paths, base = members_in(folder)
    given: dict[str, Any] = {"weight": 1.0, "density": 0.2} if method == "ties" else {"weight": 1.0}
    config = RawPyTorchMergeConfig.model_validate(
        {
            "merge_method": method,
            "models": [{"model": str(path), "parameters": given} for path in paths],
            "base_model": str(base) if method == "ties" else None,
            "parameters": {"normalize": True},
        }
    )

    def run() -> None:
        options = MergeOptions()
        tasks = plan_flat_merge(config, str(folder / OUTPUTS[1]), False, False, options)
        Executor(tasks, math_device="cpu", storage_device="cpu").execute()

    return run


def with_copy(method: str, folder: Path) -> Callable[[], Any]:
    """All bytes read, and as many written as the result has."""
    paths, base = members_in(folder)
    read = [*paths, base] if method == "ties" else paths

    def run() -> None:
        buffer = bytearray(PIECE)
        for path in read:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
        left = paths[0].stat().st_size
        with (folder / OUTPUTS[2]).open("wb", buffering=0) as file:
            while left:
                left -= file.write(memoryview(buffer)[: min(PIECE, left)])

    return run


def members_in(folder: Path) -> tuple[list[Path], Path]:
    """The files of the members and of their base."""
    return [folder / f"member_{n}.safetensors" for n in range(MEMBERS)], folder / "base.safetensors"


def write_members(folder: Path, megabytes: int, tensor: int) -> None:
    """A base of random numbers, and members that lie near it."""
    paths, base = members_in(folder)
    width = 1024
    rows = tensor * (1 << 20) // 4 // width
    count = max(1, megabytes // tensor)
    size = rows * width * 4
    header = {
        f"layers.{n}.weight": {
            "dtype": "F32",
            "shape": [rows, width],
            "data_offsets": [n * size, (n + 1) * size],
        }
        for n in range(count)
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    for number, path in enumerate((base, *paths)):
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for n in range(count):
                # The same numbers for each file, and steps of its own.
                numbers = np.random.default_rng(n).standard_normal((rows, width), np.float32)
                if number:
                    step = np.random.default_rng((n, number))
                    numbers += 0.1 * step.standard_normal((rows, width), np.float32)
                file.write(numbers.tobytes())


if __name__ == "__main__":
    main()
