import golden_files
import keras
import numpy as np
import pytest
from arrays import array, tensor

from mrcnn import model
from mrcnn.config import Config
from mrcnn.network.roi_align import PyramidROIAlign, pyramid_levels


@pytest.mark.parametrize("case", golden_files.cases("model_functions", "PyramidROIAlign"), ids=str)
def test_golden(case):
    case.check(model, config=Config)


def test_levels_by_size():
    side = np.array([0, 16, 112, 224, 448, 800]) / 1023
    boxes = np.stack([0 * side, 0 * side, side, side], -1)[None]
    assert array(pyramid_levels(tensor(boxes), tensor(1024.0 * 1024))).tolist() == [[0, 0, 1, 2, 3, 3]]


def test_pooled_shape():
    layer = PyramidROIAlign([3, 3])
    boxes, meta = keras.Input((4, 4)), keras.Input((16,))
    maps = [keras.Input((side, side, 2)) for side in (16, 8, 4, 2)]
    assert layer([boxes, meta, *maps]).shape == (None, 4, 3, 3, 2)
