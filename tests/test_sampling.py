import golden_files
import keras
import numpy as np
import pytest
import tiny
from arrays import array, tensor
from keras import ops

from mrcnn import model
from mrcnn.config import Config
from mrcnn.data import loader
from mrcnn.network import assemble, kernels
from mrcnn.network.sampling import Positives, ZerosBelow, detection_targets, draw


@pytest.mark.parametrize("case", golden_files.cases("model_functions", "DetectionTargetLayer"), ids=str)
def test_golden(case):
    case.check(model, config=Config)


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


# ------------------------------------------------------------------ rows with an object
def test_positives_are_the_first_rows():
    ids = np.array([[3, 1, 0, 0, 0], [2, 0, 0, 0, 0]], "int32")
    given = [tensor(np.random.default_rng(0).random((2, 5, 4))), tensor(ids), tensor(np.ones((2, 5, 6, 6)))]
    rows = 3 if kernels.fixed_shapes() else 2
    for got, want in zip(Positives(3)(given), given, strict=True):
        np.testing.assert_array_equal(array(got), array(want)[:, :rows])
    for got, want in zip(Positives(None)(given), given, strict=True):
        np.testing.assert_array_equal(array(got), array(want))
    nothing = [given[0], tensor(np.zeros((2, 5), "int32")), given[2]]
    assert array(Positives(0)(nothing)[0]).shape == (2, 1, 4)  # a convolution wants one row at least


def test_rows_of_zeros_fill_up():
    x = np.random.default_rng(0).random((2, 3, 4, 4, 5)).astype("float32")
    filled = array(ZerosBelow(7)(tensor(x)))
    np.testing.assert_array_equal(filled[:, :3], x)
    assert filled.shape == (2, 7, 4, 4, 5) and not filled[:, 3:].any()


def test_the_mask_head_learns_the_same_from_positives_alone(monkeypatch):
    config = tiny.config(TRAIN_BN=False, RPN_NMS_THRESHOLD=0.99, POST_NMS_ROIS_TRAINING=1000)
    batch = loader.DataGenerator(tiny.Squares(2), config, shuffle=False)[0]
    trained = []
    for rows in (Positives, lambda quota: Positives(None)):
        monkeypatch.setattr(assemble, "Positives", rows)
        keras.utils.set_random_seed(0)
        built = assemble.build_model("training", config)
        deltas = built.get_layer("rpn_model").get_layer("rpn_bbox_pred").kernel
        deltas.assign(deltas * 0)  # proposals are anchors, and some of them fit
        built.compile(keras.optimizers.SGD(0.1))
        logs = built.train_on_batch(*batch, return_dict=True)
        trained.append((logs, [array(weight) for weight in built.weights]))
    (few, weights), (all_rows, others) = trained
    assert few["mrcnn_mask_loss"] > 0 and built.outputs[6].shape[1] == config.TRAIN_ROIS_PER_IMAGE
    assert few == pytest.approx(all_rows, rel=1e-5)
    for got, want in zip(weights, others, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_negatives_alone_fill_an_image_without_a_positive():
    """Where they are wanted (USE_EMPTY_IMAGES); crowds are still no background, and images with positives stay."""
    far = [[0.6, 0.0, 0.7, 0.05 + 0.01 * k] for k in range(25)]
    nothing = target_inputs([*far, [0, 0, 0, 0]], [[0, 0, 0, 0]], [0])
    out = detection_targets(*nothing, **TARGETS, seed=1, negatives_alone=True)
    rois, ids, deltas, masks = (array(x)[0] for x in out)
    assert len(np.unique(rois, axis=0)) == 20 and all(roi.tolist() in np.float32(far).tolist() for roi in rois)
    assert not ids.any() and not deltas.any() and not masks.any()

    crowd = target_inputs([[0.1, 0.1, 0.3, 0.3], far[0]], [[0.1, 0.1, 0.4, 0.4]], [-1])
    rois = array(detection_targets(*crowd, **TARGETS, seed=1, negatives_alone=True)[0])[0]
    np.testing.assert_allclose(rois[:2], [far[0], [0, 0, 0, 0]], atol=1e-6)

    object_ = target_inputs([[0.1, 0.1, 0.5, 0.5], *far], [[0.1, 0.1, 0.5, 0.5]], [1])
    for got, want in zip(detection_targets(*object_, **TARGETS, seed=1, negatives_alone=True),
                         detection_targets(*object_, **TARGETS, seed=1), strict=True):  # fmt: skip
        np.testing.assert_array_equal(array(got), array(want))
