"""Arrays to tensors of the backend and back."""

import numpy as np
from keras import ops


def tensor(x, dtype="float32"):
    return ops.convert_to_tensor(np.asarray(x, dtype))


def array(x):
    return np.asarray(ops.convert_to_numpy(x))


def random_boxes(rng, *shape):
    """Boxes [*shape, 4] of many sizes within the unit square, normalized."""
    center, size = rng.uniform(0, 1, (*shape, 2)), rng.uniform(0.02, 0.5, (*shape, 2))
    return np.concatenate([center - size / 2, center + size / 2], axis=-1).clip(0, 1).astype("float32")
