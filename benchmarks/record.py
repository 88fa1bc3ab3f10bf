"""What benchmarks measured, as files, and the tables of the documentation that come from them.

Each benchmark writes `results/NAME.json`: what was measured in rows of numbers, the machine, the
versions, and the table that is shown. Called as a script, this file puts the tables into
`docs/benchmarks.md`, where a pair of comments marks the place of each.

    python benchmarks/record.py
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs/benchmarks.md"
MARKED = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.S)

# Packages that figures depend on, by the modules that show whether they were used.
PACKAGES = {
    "aeon": "aeon",
    "ai_edge_litert": "ai-edge-litert",
    "autogluon": "autogluon.core",
    "jax": "jax",
    "keras": "keras",
    "keras_hub": "keras-hub",
    "mergekit": "mergekit",
    "mlxtend": "mlxtend",
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "onnxsim": "onnxsim",
    "sklearn": "scikit-learn",
    "tensorflow": "tensorflow",
    "torch": "torch",
    "torch_pruning": "torch-pruning",
}


def record(
    name: str,
    rows: Sequence[dict[str, Any]],
    columns: Sequence[str],
    lines: Iterable[Sequence[Any]],
    **settings: Any,
) -> None:
    """Write `results/NAME.json` and print its table.

    Args:
        name: Name of the file, and of the place in the documentation.
        rows: All that was measured, one dictionary of numbers and words for each measurement.
        columns: Headings of the table; the first is of words, the others of numbers.
        lines: Lines of the table, with a cell for each heading.
        settings: What the figures depend on, such as seeds and numbers of runs.
    """
    table = [[*columns], *([str(cell) for cell in line] for line in lines)]
    document = {
        "benchmark": name,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "settings": settings,
        "table": table,
        "rows": [*rows],
    }
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(document, indent=1, ensure_ascii=False)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print("\n".join(markdown(table)), flush=True)


def recorded(name: str) -> list[dict[str, Any]]:
    """The rows of a file; none if there is no file."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def machine() -> dict[str, Any]:
    """The processor, its cores, the memory and the system."""
    cpu = Path("/proc/cpuinfo")
    text = cpu.read_text(encoding="utf-8") if cpu.exists() else ""
    model = re.search(r"model name\s*: (.*)", text)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("TF_NUM_INTRAOP_THREADS", "all"),
        "memory": f"{pages / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Of Python, and of the packages that were imported."""
    found = {"python": platform.python_version()}
    for module, package in PACKAGES.items():
        if module in sys.modules:
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                found[package] = getattr(sys.modules[module], "__version__", "unknown")
    return found


def markdown(table: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines of Markdown."""
    heading, *lines = table
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (heading, rule, *lines)]


def shown(document: dict[str, Any]) -> str:
    """A table with what its figures depend on."""
    made_by = document["machine"]
    settings = (f"{name} {value}" for name, value in document["settings"].items())
    packages = (f"{name} {version}" for name, version in document["versions"].items())
    where = f"{made_by['cores']} cores of {made_by['processor']}, {made_by['memory']}"
    under = f"{document['date']}, {where}; {', '.join((*settings, *packages))}."
    return "\n".join([*markdown(document["table"]), "", under, ""])


def with_tables(page: str) -> str:
    """A page with the tables of all results that there are."""

    def table(found: re.Match[str]) -> str:
        path = FOLDER / f"{found[2]}.json"
        if not path.exists():
            return found[0]
        text = shown(json.loads(path.read_text(encoding="utf-8")))
        return f"{found[1]}\n{text}\n{found[3]}"

    return MARKED.sub(table, page)


def main() -> None:
    """Renew the tables of the documentation."""
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
