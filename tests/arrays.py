"""Arrays to tensors of the backend and back."""

import numpy as np
from keras import ops


def tensor(x, dtype="float32"):
    return ops.convert_to_tensor(np.asarray(x, dtype))


def array(x):
    return np.asarray(ops.convert_to_numpy(x))
