import golden_files
import numpy as np
import pytest
from keras import ops

from mrcnn import model
from mrcnn.geometry import boxes as pixel_boxes
from mrcnn.network import tensors

FUNCTIONS = [
    "apply_box_deltas_graph", "clip_boxes_graph", "box_refinement_graph", "norm_boxes_graph", "denorm_boxes_graph",
    "overlaps_graph", "trim_zeros_graph", "batch_pack_graph", "parse_image_meta_graph",
]


@pytest.mark.parametrize("case", [c for c in golden_files.cases("model_functions", *FUNCTIONS)], ids=str)
def test_golden(case):
    from mrcnn import utils

    case.check(utils if case.func == "box_refinement_graph" else model)


def test_deltas_are_bounded_like_those_of_arrays():
    boxes = np.array([[10, 10, 20, 30]], "float32")
    deltas = np.array([[0.1, -0.2, 50.0, 99.0]], "float32")
    got = ops.convert_to_numpy(tensors.apply_box_deltas(ops.convert_to_tensor(boxes), ops.convert_to_tensor(deltas)))
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, pixel_boxes.apply_box_deltas(boxes, deltas), rtol=1e-5)


def test_graphs_stay_in_float32():
    boxes = ops.ones((2, 3, 4), dtype="float32")
    for result in (
        tensors.apply_box_deltas(boxes, boxes), tensors.log2(boxes), tensors.norm_boxes(boxes, (8, 9)),
        tensors.overlaps(boxes, boxes), tensors.clip_boxes(boxes, ops.ones((4,))),
    ):
        assert ops.convert_to_numpy(result).dtype == np.float32


def test_empty_union_overlaps_nothing():
    flat = ops.zeros((1, 2, 4))
    assert ops.convert_to_numpy(tensors.overlaps(flat, flat)).tolist() == [[[0, 0], [0, 0]]]


def test_log2_of_powers():
    logarithms = tensors.log2(ops.convert_to_tensor([1.0, 8.0, 0.25]))
    np.testing.assert_allclose(ops.convert_to_numpy(logarithms), [0, 3, -2], atol=1e-6)
