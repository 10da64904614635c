import numpy as np
import pytest
from arrays import array, random_boxes
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from mrcnn.geometry import boxes as pixel_boxes
from mrcnn.network import suppression


def greedy(boxes, threshold, ids, valid, limit):
    """The definition: walk down the list, keep what no survivor of its group overlaps too much."""
    iou, kept = pixel_boxes.compute_overlaps(boxes, boxes), []
    for i in range(len(boxes)):
        if valid[i] and all(iou[i, j] <= threshold or ids[i] != ids[j] for j in kept):
            kept.append(i)
    return (kept + [-1] * limit)[:limit]


@pytest.mark.parametrize("count, limit", [(40, 20), (700, 400), (5, 9)])
@pytest.mark.parametrize("grouped", [False, True])
def test_non_max_suppression_is_greedy(count, limit, grouped):
    rng = np.random.default_rng(count)
    boxes = random_boxes(rng, 2, count)
    ids = rng.integers(1, 4, (2, count)).astype("int32") if grouped else np.ones((2, count), "int32")
    valid = rng.uniform(size=(2, count)) < 0.8 if grouped else np.ones((2, count), bool)
    extra = {"groups": (ops.convert_to_tensor(ids), 4), "valid": ops.convert_to_tensor(valid)} if grouped else {}
    keep = array(suppression.non_max_suppression(ops.convert_to_tensor(boxes), limit, 0.4, **extra))
    assert keep.tolist() == [greedy(boxes[i], 0.4, ids[i], valid[i], limit) for i in range(2)]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_both_suppressions_agree(seed, threshold):
    boxes = ops.convert_to_tensor(random_boxes(np.random.default_rng(seed), 2, 60))
    keep = array(suppression.non_max_suppression(boxes, 30, threshold))
    np.testing.assert_array_equal(keep, array(suppression._by_tiles(boxes, 30, threshold, None, None)))


def test_equal_overlap_survives():
    boxes = np.array([[[0, 0, 1, 1], [0, 0, 0.5, 1], [0, 0, 1, 1]]], "float32")
    keep = suppression.non_max_suppression(ops.convert_to_tensor(boxes), 3, 0.5)
    assert array(keep).tolist() == [[0, 1, -1]]
