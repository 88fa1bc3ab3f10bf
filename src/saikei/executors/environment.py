"""What other processes need to compute bit for bit what this one computes.

A backend gives other weights for another number of threads, with the same seed, and reads that
number from the environment when it is imported. Keras imports the backend, so it is imported in the
functions here: a process that runs one task may not need it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from threadpoolctl import threadpool_info

from saikei.executors.versions import package_versions

# The variable that each backend takes its number of threads within one operation from.
_THREADS = {"tensorflow": "TF_NUM_INTRAOP_THREADS", "jax": "NPROC", "torch": "OMP_NUM_THREADS"}

# What the libraries that NumPy and SciPy use take theirs from. Each process would otherwise start a
# thread for each processor, and other numbers of threads give other numbers too.
_LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# Otherwise the first of several processes would take all memory of the GPU.
_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}

# Beginnings of the names of other variables that change what a backend computes.
_COPIED = ("KERAS_", "TF_", "XLA_", "JAX_", "OMP_", "MKL_", "OPENBLAS_", "TORCH_", "CUBLAS_")


def thread_count() -> int:
    """Number of threads that the backend uses within one operation in this process.

    The fingerprint of a run needs it: it is part of what decides the weights. Set it with
    `TF_NUM_INTRAOP_THREADS` (TensorFlow), `NPROC` (JAX) or `OMP_NUM_THREADS` (torch) before the
    process starts; the default is the number of processors that the process may use.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "torch":
        # torch sets its number at the first operation.
        keras.ops.matmul([[1.0]], [[1.0]])
        counts = [
            int(library["num_threads"])
            for library in threadpool_info()
            if library["user_api"] == "openmp" and "torch" in library["filepath"]
        ]
        return max(counts, default=_processors())
    given = os.environ.get(_THREADS.get(backend, ""), "")
    return int(given) if given.isdigit() and int(given) > 0 else _processors()


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment() -> Mapping[str, str]:
    """Environment variables for a process that is to compute what this one does."""
    import keras

    backend, count = keras.backend.backend(), str(thread_count())
    return {
        **{name: value for name, value in os.environ.items() if name.startswith(_COPIED)},
        **dict.fromkeys(_LIBRARIES, count),
        **_GPU,
        "KERAS_BACKEND": backend,
        _THREADS.get(backend, "OMP_NUM_THREADS"): count,
    }


@dataclass(frozen=True)
class Driver:
    """What a process needs to know about the one that it works for.

    Args:
        settings: The settings of Keras there that are not its defaults.
        versions: The versions of the packages there.
    """

    settings: Mapping[str, str]
    versions: Mapping[str, str]


def this_driver() -> Driver:
    """What other processes need to know about this one."""
    import keras

    return Driver(_keras_settings(), package_versions(keras.backend.backend()))


def _keras_settings() -> Mapping[str, str]:
    import keras

    settings = {
        "floatx": keras.config.floatx(),
        "image_data_format": keras.config.image_data_format(),
        "dtype_policy": keras.config.dtype_policy().name,
    }
    defaults = {"floatx": "float32", "image_data_format": "channels_last"}
    defaults["dtype_policy"] = settings["floatx"]
    return {name: value for name, value in settings.items() if value != defaults[name]}


def apply_keras_settings(settings: Mapping[str, str]) -> None:
    """Set Keras in this process as it is set in another.

    Args:
        settings: The settings of a `Driver`.
    """
    import keras

    for name, value in settings.items():
        getattr(keras.config, f"set_{name}")(value)
