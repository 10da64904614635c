import numpy as np
import pytest
from arrays import array

from mrcnn.network.rpn import Anchors, build_rpn_model, in_strips


def test_rpn_model():
    rpn = build_rpn_model(1, 3, 16, channels=8)
    assert rpn.name == "rpn_model" and rpn.inputs[0].name == "input_rpn_feature_map"
    logits, probs, deltas = (array(x) for x in rpn(np.ones((2, 4, 5, 16), "float32")))
    assert logits.shape == probs.shape == (2, 60, 2) and deltas.shape == (2, 60, 4)
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-5)
    assert build_rpn_model(2, 3, 16)(np.ones((1, 4, 4, 16), "float32"))[0].shape == (1, 12, 2)


@pytest.mark.parametrize("height", [1, 3, 4, 8, 9, 14])
def test_strips_give_the_numbers_of_the_whole_map(height):
    rpn = build_rpn_model(1, 3, 16, channels=8)
    features = np.random.default_rng(height).normal(size=(2, height, 5, 16)).astype("float32")
    whole = [array(x) for x in rpn(features)]
    for ours, expected in zip(in_strips(rpn, features, rows=4), whole, strict=True):
        np.testing.assert_allclose(array(ours), expected, atol=1e-5)


def test_a_strip_has_few_rows(monkeypatch):
    rpn, heights = build_rpn_model(1, 3, 16, channels=8), []
    call = type(rpn).__call__
    monkeypatch.setattr(type(rpn), "__call__", lambda self, x: heights.append(x.shape[1]) or call(self, x))
    in_strips(rpn, np.zeros((1, 9, 5, 16), "float32"), rows=4)
    assert heights == [4, 4, 4, 3]
    heights.clear()
    in_strips(rpn, np.zeros((1, 8, 5, 16), "float32"), rows=7, after=np.zeros(1, "float32"))
    assert heights == [7, 3]
    every_second = build_rpn_model(2, 3, 16)
    heights.clear()
    assert in_strips(every_second, np.zeros((1, 10, 4, 16), "float32"), rows=4)[0].shape == (1, 30, 2)
    assert heights == [10]


def test_anchors_are_repeated_for_each_image():
    values = np.arange(8).reshape(2, 4)
    assert array(Anchors(values)(np.zeros((3, 8, 8, 3)))).tolist() == [values.tolist()] * 3
