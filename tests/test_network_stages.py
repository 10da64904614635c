"""The layers between backbone and losses, against the original's numbers and at their edges."""

import golden_files
import keras
import numpy as np
import pytest
from keras import ops

from mrcnn import model
from mrcnn.config import Config
from mrcnn.network import losses
from mrcnn.network.detection import DetectionLayer, refine_detections
from mrcnn.network.heads import mask_upsampling
from mrcnn.network.proposals import ProposalLayer
from mrcnn.network.roi_align import PyramidROIAlign, pyramid_levels
from mrcnn.network.rpn import Anchors, build_rpn_model
from mrcnn.network.sampling import detection_targets, draw

FUNCTIONS = [
    "ProposalLayer", "PyramidROIAlign", "DetectionLayer", "DetectionTargetLayer", "smooth_l1_loss",
    "rpn_class_loss_graph", "rpn_bbox_loss_graph", "mrcnn_class_loss_graph", "mrcnn_bbox_loss_graph",
    "mrcnn_mask_loss_graph",
]


def cases():
    """All cases but the one whose number is that of a fault that is mended (class flags of the first image for all)."""
    return [c for c in golden_files.cases("model_functions", *FUNCTIONS) if not c.entry.get("soft")]


@pytest.mark.parametrize("case", cases(), ids=str)
def test_golden(case):
    case.check(model, config=Config)


def tensor(x, dtype="float32"):
    return ops.convert_to_tensor(np.asarray(x, dtype))


def array(x):
    return np.asarray(ops.convert_to_numpy(x))


# ------------------------------------------------------------------ RPN and proposals
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


def proposal_inputs(count=300, seed=0):
    rng = np.random.default_rng(seed)
    fg = rng.permutation(np.linspace(0.01, 0.99, count))[None]
    corner = rng.uniform(0, 0.7, (1, count, 2))
    anchors = np.concatenate([corner, corner + rng.uniform(0.05, 0.3, (1, count, 2))], -1)
    return [tensor(x) for x in (np.stack([1 - fg, fg], -1), rng.normal(0, 1, (1, count, 4)), anchors)]


def test_proposals_show_their_steps():
    layer = ProposalLayer(40, 0.5, 100, [0.1, 0.1, 0.2, 0.2])
    inputs = proposal_inputs()
    steps = {name: array(x) for name, x in layer.steps(*inputs).items()}
    rois = array(layer(inputs))
    assert tuple(steps) == layer.step_names
    assert steps["pre_nms_anchors"].shape == (1, 100, 4)
    assert steps["refined_anchors_clipped"].min() >= 0 and steps["refined_anchors_clipped"].max() <= 1
    keep = steps["rpn_non_max_suppression"][0]
    np.testing.assert_array_equal(rois[0, keep >= 0], steps["refined_anchors_clipped"][0, keep[keep >= 0]])
    assert (rois[0, keep < 0] == 0).all()


def test_fewer_anchors_than_proposals_end_in_zeros():
    rois = array(ProposalLayer(50, 0.7, 6000, [0.1, 0.1, 0.2, 0.2])(proposal_inputs(count=7)))
    assert rois.shape == (1, 50, 4) and (rois[0, 7:] == 0).all() and rois[0, 0].any()


# ------------------------------------------------------------------ pooling
def test_levels_by_size():
    side = np.array([0, 16, 112, 224, 448, 800]) / 1023
    boxes = np.stack([0 * side, 0 * side, side, side], -1)[None]
    assert array(pyramid_levels(tensor(boxes), tensor(1024.0 * 1024))).tolist() == [[0, 0, 1, 2, 3, 3]]


def test_boxes_get_no_gradient_from_pooling():
    layer = PyramidROIAlign([3, 3])
    boxes, meta = keras.Input((4, 4)), keras.Input((16,))
    maps = [keras.Input((side, side, 2)) for side in (16, 8, 4, 2)]
    assert layer([boxes, meta, *maps]).shape == (None, 4, 3, 3, 2)


# ------------------------------------------------------------------ targets
TARGETS = {
    "count": 20, "positive_ratio": 0.25, "std_dev": [0.1, 0.1, 0.2, 0.2], "mask_shape": (28, 28), "mini_masks": True,
}


def target_inputs(proposals, boxes, ids):
    masks = np.ones((1, 56, 56, len(ids)), bool)
    return tensor([proposals]), tensor([ids], "int32"), tensor([boxes]), ops.convert_to_tensor(masks)


def test_positives_first_then_negatives_in_proportion():
    gt = [[0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]]
    near = [[0.1, 0.1, 0.5, 0.48 + 0.005 * k] for k in range(12)]
    far = [[0.6, 0.0, 0.7, 0.05 + 0.01 * k] for k in range(25)]
    rois, ids, deltas, masks = (
        array(x)[0] for x in detection_targets(*target_inputs(near + far, gt, [2, 1]), **TARGETS, seed=1)
    )
    assert ids.tolist() == [2] * 5 + [0] * 15
    assert all(roi.tolist() in np.float32(near).tolist() for roi in rois[:5])
    assert all(roi.tolist() in np.float32(far).tolist() for roi in rois[5:])
    assert masks[:5].mean() > 0.9 and not masks[5:].any() and not deltas[5:].any()
    np.testing.assert_allclose(deltas[:5, 0], 0, atol=1e-5)


def test_no_positive_means_no_roi_and_no_nan():
    out = detection_targets(*target_inputs([[0.6, 0.6, 0.7, 0.7]] * 3, [[0.1, 0.1, 0.2, 0.2]], [1]), **TARGETS, seed=1)
    assert all(not array(x).any() for x in out)


def test_no_ground_truth_at_all():
    out = detection_targets(*target_inputs([[0.6, 0.6, 0.7, 0.7]] * 3, [[0, 0, 0, 0]], [0]), **TARGETS, seed=1)
    assert all(not array(x).any() for x in out)


def test_crowds_are_neither_target_nor_background():
    gt = [[0.1, 0.1, 0.3, 0.3], [0.5, 0.5, 0.9, 0.9]]
    proposals = [[0.1, 0.1, 0.3, 0.3], [0.5, 0.5, 0.9, 0.9], [0.1, 0.6, 0.2, 0.7]]
    rois, ids, *_ = (array(x)[0] for x in detection_targets(*target_inputs(proposals, gt, [1, -1]), **TARGETS, seed=1))
    assert ids.tolist() == [1] + [0] * 19
    np.testing.assert_allclose(rois[:3], [proposals[0], proposals[2], [0, 0, 0, 0]], atol=1e-6)


def test_draw_is_uniform_and_seeded():
    candidates = ops.convert_to_tensor(np.array([[True] * 10 + [False] * 10]))
    counts = np.zeros(20)
    for seed in range(200):
        chosen, valid = (array(x)[0] for x in draw(candidates, 4, seed))
        assert valid.all() and len(set(chosen.tolist())) == 4
        counts[chosen] += 1
    assert not counts[10:].any() and counts[:10].min() > 40
    np.testing.assert_array_equal(array(draw(candidates, 4, 3)[0]), array(draw(candidates, 4, 3)[0]))


# ------------------------------------------------------------------ detection
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


# ------------------------------------------------------------------ heads and losses
@pytest.mark.parametrize("pool, shape, times", [(14, [28, 28], 1), (14, [56, 56], 2), (7, (14, 14), 1)])
def test_mask_shape_sets_the_number_of_deconvolutions(pool, shape, times):
    assert mask_upsampling(pool, shape) == times


@pytest.mark.parametrize("shape", [[14, 14], [30, 30], [28, 56], [0, 0]])
def test_impossible_mask_shape(shape):
    with pytest.raises(ValueError, match="MASK_SHAPE must be MASK_POOL_SIZE times"):
        mask_upsampling(14, shape)


def test_class_flags_belong_to_their_image():
    logits = tensor([[[0, 9, 0]], [[0, 0, 9]]])
    flags = tensor([[1, 1, 0], [1, 0, 1]])
    ids = tensor([[1], [2]], "int32")
    assert float(array(losses.mrcnn_class_loss(ids, logits, flags))) < 1e-3
    assert float(array(losses.mrcnn_class_loss(ids, logits, flags[::-1]))) == 0  # nothing active: 0, not 0/0
