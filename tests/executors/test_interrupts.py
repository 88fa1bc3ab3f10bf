"""No process is left when the one that started it is interrupted or killed."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A shell starts what runs in its background with interrupts ignored, and children inherit that.
DRIVER = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
from saikei.executors import executor_for
from tests.executors import tasks
executor = executor_for(ray="local") if sys.argv[2] == "ray" else executor_for(workers=2)
executor.run(tasks.sleeping, Path(sys.argv[1]), [0, 1], lambda *_: None)
"""
PATIENCE = 120
RAY = pytest.param(
    "ray",
    marks=[
        pytest.mark.slow,
        pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra"),
    ],
)


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(claim: object, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not claim():  # type: ignore[operator]
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("kind", ["processes", RAY])
def test_no_process_is_left(tmp_path: Path, kind: str, number: signal.Signals) -> None:
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TF_NUM_INTRAOP_THREADS": "1"}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path), kind],
        cwd=ROOT,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2, "the tasks have not begun")
        children = [int(path.name) for path in tmp_path.iterdir()]
        assert all(map(alive, children))
        # As a terminal does with Ctrl-C, to every process; a kill is meant for one.
        if number == signal.SIGINT:
            os.killpg(driver.pid, number)
        else:
            driver.kill()
        _, errors = driver.communicate(timeout=PATIENCE)
    finally:
        driver.kill()
    # Where Ray is imported, Python ends with 1 after an interrupt.
    assert driver.returncode in (-number, 1)
    wait_until(lambda: not any(map(alive, children)), "a process is left")
    # Only the driver was interrupted, and its own traceback is all there is.
    assert errors.count("Traceback") == (number == signal.SIGINT)
