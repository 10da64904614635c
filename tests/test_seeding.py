"""Seeds: the draws of `keras.utils.set_random_seed`, without a framework that does not compute."""

import random
from pathlib import Path

import keras
import numpy as np
import pytest

from mrcnn.network.seeding import set_random_seed

TESTS = Path(__file__).resolve().parent
BUILDS = """
import sys
sys.path.append({tests!r})
import tiny
from mrcnn.distribution import digits
from mrcnn.model import MaskRCNN
MaskRCNN("inference", tiny.config(SEED=0), "")
batch = digits.draw_digits(4, 0)
digits.train(1, [batch], batch)
print("tensorflow" in sys.modules)
"""
DRAWS = """
import sys
sys.path.append({tests!r})
import keras
import test_seeding
keras.random.uniform((1,))  # makes Keras' generator, which is to be made anew
ours = test_seeding.draws(test_seeding.set_random_seed)
assert "tensorflow" not in sys.modules
print(ours == test_seeding.draws(keras.utils.set_random_seed))
"""


def draws(seeded, seed=5):
    """What all generators draw after `seeded(seed)`."""
    seeded(seed)
    layer = keras.layers.Dense(3)
    layer.build((None, 4))
    tensors = [keras.random.uniform((5,)), layer.kernel]
    if keras.backend.backend() == "torch":
        import torch

        tensors.append(torch.rand(4))
    drawn = np.concatenate([np.ravel(keras.ops.convert_to_numpy(tensor)) for tensor in tensors])
    return [random.random(), *np.random.rand(2).tolist(), *drawn.tolist()]


def test_draws_as_keras_does():
    ours = draws(set_random_seed)
    assert ours == draws(keras.utils.set_random_seed)
    assert ours == draws(set_random_seed) != draws(set_random_seed, 6)


def test_seeds_are_whole_numbers():
    with pytest.raises(ValueError, match="integer"):
        set_random_seed("1")


@pytest.mark.backend
@pytest.mark.parametrize("backend", ["torch", "jax"])
@pytest.mark.parametrize("code", [BUILDS, DRAWS], ids=["builds", "draws"])
def test_tensorflow_is_not_imported(run_python, backend, code):
    pytest.importorskip(backend)
    printed = run_python(code.format(tests=str(TESTS)), backend).split()[-1]
    assert printed == ("False" if code is BUILDS else "True")
