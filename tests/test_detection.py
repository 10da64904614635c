import golden_files
import numpy as np
import pytest
from arrays import array, tensor
from keras import ops

from mrcnn import model
from mrcnn.config import Config
from mrcnn.network.detection import DetectionLayer, refine_detections


@pytest.mark.parametrize("case", golden_files.cases("model_functions", "DetectionLayer"), ids=str)
def test_golden(case):
    case.check(model, config=Config)


DETECTION = {"std_dev": [0.1, 0.1, 0.2, 0.2], "nms_threshold": 0.3, "max_instances": 5}


def detection_inputs():
    rois = [[0.1, 0.1, 0.4, 0.4], [0.1, 0.1, 0.4, 0.41], [0.5, 0.5, 0.9, 0.9], [0.1, 0.1, 0.4, 0.4]]
    probs = [[0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.9, 0.05, 0.05], [0.3, 0.1, 0.6]]
    return tensor([rois]), tensor([probs]), ops.zeros((1, 4, 3, 4)), tensor([[0, 0, 1, 1]])


def test_classes_do_not_suppress_each_other():
    steps = {k: array(v)[0] for k, v in refine_detections(*detection_inputs(), min_confidence=0.5, **DETECTION).items()}
    assert steps["keep"].tolist() == [0, 3, -1, -1, -1]
    assert steps["confident"].tolist() == [True, True, False, True]
    np.testing.assert_allclose(steps["detections"][:2, 4:], [[1, 0.8], [2, 0.6]])
    assert not steps["detections"][2:].any()


@pytest.mark.parametrize("threshold, kept", [(0, 2), (None, 2), (0.65, 1), (0.99, 0)])
def test_confidence_threshold(threshold, kept):
    detections = array(refine_detections(*detection_inputs(), min_confidence=threshold, **DETECTION)["detections"])
    assert (detections[0, :, 4] > 0).sum() == kept


def test_detection_layer_shape():
    layer = DetectionLayer([0.1, 0.1, 0.2, 0.2], 0.7, 0.3, 33)
    assert layer.compute_output_shape([(None, 10, 4), (None, 10, 3), (None, 10, 3, 4), (None, 15)]) == (None, 33, 6)
