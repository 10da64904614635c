"""Weights files with damage that shows late: the error comes before the first variable has changed."""

import numpy as np
import pytest
from test_weights import assert_untouched
from weight_files import content, small_model, write_keras2

from mrcnn.engine import weights
from mrcnn.engine.weights import load_weights, save_weights


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_are_refused(tmp_path, model, value):
    saved = content(model)
    saved["mrcnn_class_logits"] |= {"mrcnn_class_logits/bias:0": np.array([1, 2, value, 3])}
    path = write_keras2(tmp_path / "w.h5", saved)
    assert_untouched(model, lambda: load_weights(model, path),
                     match=r"w\.h5: the array 'mrcnn_class_logits/bias' holds values that are no finite numbers")


def test_damage_that_shows_only_in_reading_leaves_the_model_alone(tmp_path, model):
    """The last array of the file: by then all others would have been assigned."""
    path = tmp_path / "w.h5"
    save_weights(model, path)
    with weights.read_file(path) as found:
        *_, (name, array) = [item for arrays in found.values() for item in arrays.items()]
        place = array.id.get_offset()
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 1
    path.write_bytes(damaged)
    assert weights.is_whole(path)
    assert_untouched(model, lambda: load_weights(model, path),
                     match=rf"w\.h5 is damaged: the array '{name.split(':')[0]}' has changed since.*Fetch or save")
