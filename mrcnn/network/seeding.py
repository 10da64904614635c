"""Random generators, set without the frameworks that do not compute."""

from __future__ import annotations

import sys
import types

import keras

from mrcnn.network.kernels import BACKEND


def set_random_seed(seed):
    """`keras.utils.set_random_seed`, but that it does not import TensorFlow for another backend.

    Sets the generators of `random`, numpy, Keras and the backend; TensorFlow's too, if it was imported already.

    Args:
        seed: int.

    Raises:
        ValueError: `seed` is no int.
    """
    run = keras.utils.set_random_seed
    if BACKEND != "tensorflow" and "tensorflow" not in sys.modules:
        # the same function, in a module where TensorFlow is not to be had
        absent = types.SimpleNamespace(available=False)
        run = types.FunctionType(run.__code__, {**run.__globals__, "tf": absent}, run.__name__)
    run(seed)
