"""The machine that times are measured on, by name."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path


@cache
def machine() -> str:
    """The processor with its number of cores, such as `"AMD EPYC 7763 (2 cores)"`."""
    name = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    named = next(iter(models), "") or name or platform.machine() or "an unknown processor"
    return f"{named} ({os.cpu_count()} cores)"
