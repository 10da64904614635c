import numpy as np
from arrays import array

from mrcnn.network.rpn import Anchors, build_rpn_model


def test_rpn_model():
    rpn = build_rpn_model(1, 3, 16, channels=8)
    assert rpn.name == "rpn_model" and rpn.inputs[0].name == "input_rpn_feature_map"
    logits, probs, deltas = (array(x) for x in rpn(np.ones((2, 4, 5, 16), "float32")))
    assert logits.shape == probs.shape == (2, 60, 2) and deltas.shape == (2, 60, 4)
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-5)
    assert build_rpn_model(2, 3, 16)(np.ones((1, 4, 4, 16), "float32"))[0].shape == (1, 12, 2)


def test_anchors_are_repeated_for_each_image():
    values = np.arange(8).reshape(2, 4)
    assert array(Anchors(values)(np.zeros((3, 8, 8, 3)))).tolist() == [values.tolist()] * 3
