"""The threads of NumPy's and SciPy's linear algebra."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import scipy.linalg  # noqa: F401 - its library has to be loaded before it is looked for
from threadpoolctl import ThreadpoolController

# Matrices of up to this size are computed faster by one thread than by several that wait for each
# other: where other programs run, a Cholesky factorisation of size 400 takes 300 times as long, and
# one of size 3072 takes six times as much CPU.
SMALL = 4096


def one_thread(size: int = 0) -> AbstractContextManager[object]:
    """A context in which linear algebra uses one thread, unless matrices are large.

    Args:
        size: The size of the matrices; above 4,096 the threads stay as they are.
    """
    if size > SMALL:
        return nullcontext()
    limited: AbstractContextManager[object] = _libraries().limit(limits=1, user_api="blas")
    return limited


@cache
def _libraries() -> ThreadpoolController:
    # Searching the loaded libraries takes milliseconds.
    return ThreadpoolController()
