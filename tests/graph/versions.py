"""What the installed version of Keras can do."""

from __future__ import annotations

import keras

VERSION = tuple(int(part) for part in keras.version().split(".")[:2])
UNREAD_INPUTS = VERSION >= (3, 14)
