"""At the edges of what data can be (nothing, one pixel, no area, too many, extreme numbers) all numbers stay finite.

That a healthy step keeps its numbers is what the golden tests are for. As these, the tests here run on each backend.
"""

import keras
import numpy as np
import pytest
import tiny
from arrays import array, tensor
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mrcnn.data import loader
from mrcnn.data.targets import build_rpn_targets
from mrcnn.geometry import boxes as pixel_boxes
from mrcnn.geometry import masks as pixel_masks
from mrcnn.geometry import metrics
from mrcnn.network import assemble, losses, tensors
from mrcnn.network.roi_align import pyramid_levels
from mrcnn.network.sampling import detection_targets, relative_to_boxes

STD_DEV = [0.1, 0.1, 0.2, 0.2]
SIDE = 64
FEW = settings(max_examples=30, deadline=None)


def numbers(shape, most):
    """Float32 arrays of a shape with ordinary numbers and extreme ones."""
    extremes = st.sampled_from([0.0, 1.0, -1.0, most, -most, 1e-30])
    return hnp.arrays(np.float32, shape, elements=st.one_of(extremes, st.floats(-8, 8, width=32)))


def whole(shape, low, high):
    return hnp.arrays(np.int32, shape, elements=st.integers(low, high))


@st.composite
def edge_boxes(draw, count, side=SIDE):
    """[count, 4] int32 pixel boxes: zero rows, without height or width, of one pixel, the whole image, any other."""
    rows = []
    for _ in range(count):
        y, x = draw(st.integers(0, side - 1)), draw(st.integers(0, side - 1))
        h, w = (draw(st.sampled_from([0, 1, 1, 2, 9, side])) for _ in range(2))
        rows.append(draw(st.sampled_from([(y, x, min(y + h, side), min(x + w, side))] * 4 + [(0, 0, 0, 0)])))
    return np.array(rows, np.int32).reshape(-1, 4)


# ------------------------------------------------------------------ losses
def value_and_gradient(function, at):
    """The sum of what a function of one tensor returns, and its gradient, by the backend's own means."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        value, gradient = jax.value_and_grad(lambda x: function(x).sum())(tensor(at))
    elif backend == "torch":
        at = tensor(at).requires_grad_()
        value = function(at).sum()
        value.backward()
        value, gradient = value.detach(), at.grad
    else:
        import tensorflow as tf

        at = tf.convert_to_tensor(at)
        with tf.GradientTape() as tape:
            tape.watch(at)
            value = tf.reduce_sum(function(at))
        gradient = tape.gradient(value, at)
    return float(value), array(gradient)


@FEW
@given(st.data())
def test_losses_and_their_gradients_are_finite(data):
    match, ids, active = (data.draw(whole(*limits)) for limits in (((2, 6, 1), -1, 1), ((2, 5), 0, 2), ((2, 3), 0, 1)))
    deltas, targets = data.draw(numbers((2, 6, 4), 1e6)), data.draw(numbers((2, 4, 4), 1e6))
    binary = data.draw(hnp.arrays(np.float32, (2, 5, 2, 2), elements=st.sampled_from([0.0, 1.0])))
    shares = data.draw(hnp.arrays(np.float32, (2, 5, 2, 2, 3), elements=st.sampled_from([0.0, 1e-30, 0.5, 1.0])))
    box_targets = data.draw(numbers((2, 5, 4), 1e6))
    counts = ((match != 0).any(), (match == 1).any(), active.any(), ids.any(), ids.any())
    match, ids, active = (tensor(values, "int32") for values in (match, ids, active))
    targets, binary, box_targets = tensor(targets), tensor(binary), tensor(box_targets)
    cases = {
        "rpn_class": (lambda x: losses.rpn_class_loss(match, x), numbers((2, 6, 2), 1e6)),
        "rpn_bbox": (lambda x: losses.rpn_bbox_loss(targets, match, x), st.just(deltas)),
        "class": (lambda x: losses.mrcnn_class_loss(ids, x, active), numbers((2, 5, 3), 1e6)),
        "bbox": (lambda x: losses.mrcnn_bbox_loss(box_targets, ids, x), numbers((2, 5, 3, 4), 1e6)),
        "mask": (lambda x: losses.mrcnn_mask_loss(binary, ids, x), st.just(shares)),
    }
    for (name, (function, predictions)), counted in zip(cases.items(), counts, strict=True):
        value, gradient = value_and_gradient(function, data.draw(predictions))
        assert np.isfinite(value) and value >= 0 and np.isfinite(gradient).all(), name
        if not counted:
            assert value == 0 and not gradient.any(), name


def test_losses_of_nothing_are_zero():
    none, flags = tensor(np.zeros((2, 4)), "int32"), tensor(np.zeros((2, 3)), "int32")
    logits, boxes, masks = (tensor(np.ones((2, 4, *sides))) for sides in ((3,), (4,), (2, 2)))
    assert float(array(losses.rpn_class_loss(none[..., None], logits[..., :2]))) == 0
    assert float(array(losses.rpn_bbox_loss(boxes, none[..., None], boxes + 1))) == 0
    assert float(array(losses.mrcnn_class_loss(none, 5 * logits, flags))) == 0
    assert float(array(losses.mrcnn_bbox_loss(boxes, none, tensor(np.zeros((2, 4, 3, 4)))))) == 0
    assert float(array(losses.mrcnn_mask_loss(masks, none, tensor(np.ones((2, 4, 2, 2, 3)))))) == 0


# ------------------------------------------------------------------ boxes
@FEW
@given(edge_boxes(6), edge_boxes(6))
def test_deltas_between_any_boxes_are_finite(first, second):
    """Those of pairs with an area are those that `apply_box_deltas` undoes; the others are zeros."""
    deltas = array(tensors.box_refinement(tensor(first), tensor(second)))
    sides = np.concatenate([first[:, 2:] - first[:, :2], second[:, 2:] - second[:, :2]], axis=1)
    real = (sides > 0).all(axis=1)
    assert np.isfinite(deltas).all() and not deltas[~real].any()
    if real.any():
        np.testing.assert_allclose(deltas[real], pixel_boxes.box_refinement(first[real], second[real]), atol=1e-5)


@FEW
@given(edge_boxes(6), edge_boxes(6))
def test_gradients_of_deltas_between_any_boxes_are_finite(first, second):
    """They flow into the proposals, as they did in the original."""
    _, gradient = value_and_gradient(lambda x: tensors.box_refinement(x, tensor(second)), first.astype("float32"))
    assert np.isfinite(gradient).all()


@FEW
@given(edge_boxes(6), edge_boxes(6))
@example(np.tile(np.array([[3, 3, 9, 9]], np.int32), (6, 1)), np.tile(np.array([[5, 5, 5, 9]], np.int32), (6, 1)))
def test_places_within_any_boxes_are_finite(first, second):
    rois, boxes = (pixel_boxes.norm_boxes(rows, (SIDE, SIDE)) for rows in (first, second))
    inside = array(relative_to_boxes(tensor(rois), tensor(boxes)))
    assert np.isfinite(inside).all()
    assert np.isfinite(value_and_gradient(lambda x: relative_to_boxes(x, tensor(boxes)), rois)[1]).all()
    assert np.isfinite(value_and_gradient(lambda x: relative_to_boxes(tensor(rois), x), boxes)[1]).all()
    real = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    wanted = (rois[real] - np.tile(boxes[real, :2], 2)) / np.tile(boxes[real, 2:] - boxes[real, :2], 2)
    np.testing.assert_allclose(inside[real], wanted, rtol=1e-5, atol=1e-5)


@FEW
@given(edge_boxes(5), numbers((5, 4), 1e30))
def test_boxes_moved_by_any_deltas_can_be_clipped(boxes, deltas):
    moved = tensors.apply_box_deltas(tensor(pixel_boxes.norm_boxes(boxes, (SIDE, SIDE))), tensor(deltas))
    clipped = array(tensors.clip_boxes(moved, tensor([0, 0, 1, 1])))
    assert ((clipped >= 0) & (clipped <= 1)).all()


@FEW
@given(edge_boxes(5), edge_boxes(4))
def test_overlaps_of_any_boxes_are_shares(first, second):
    wanted = pixel_boxes.compute_overlaps(first, second)
    for table in (wanted, array(tensors.overlaps(tensor(first), tensor(second)))):
        assert ((table >= 0) & (table <= 1)).all()
        np.testing.assert_allclose(table, wanted, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32"])
def test_overlaps_do_not_wrap_around(dtype):
    """Differences of unsigned numbers, and areas of small ones, would."""
    side = min(np.iinfo(dtype).max, 60000)
    rows = [[0, 0, side, side], [0, 0, side // 2, side], [side - 5, side - 5, side, side]]
    first, second = np.array(rows, dtype), np.array(rows[::-1], dtype)
    wanted = pixel_boxes.compute_overlaps(first.astype(float), second.astype(float))
    np.testing.assert_array_equal(pixel_boxes.compute_overlaps(first, second), wanted)
    areas = (first[:, 2].astype(float) - first[:, 0]) * (first[:, 3].astype(float) - first[:, 1])
    np.testing.assert_array_equal(pixel_boxes.compute_iou(second[0], first, areas[2], areas), wanted[:, 0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_coordinates_of_an_image_of_one_pixel_come_back(shape):
    box = np.array([[0, 0, *shape]])
    normalized = pixel_boxes.norm_boxes(box, shape)
    np.testing.assert_array_equal(pixel_boxes.denorm_boxes(normalized, shape), box)
    np.testing.assert_array_equal(array(tensors.norm_boxes(tensor(box), shape)), normalized)
    np.testing.assert_array_equal(array(tensors.denorm_boxes(tensor(normalized), shape)), box)
    everything = np.array([[0, 0, 1, 1]], np.float32)  # which detection may ask for, whatever the size
    np.testing.assert_array_equal(pixel_boxes.denorm_boxes(everything, shape), box)
    np.testing.assert_array_equal(array(tensors.denorm_boxes(tensor(everything), shape)), box)


def test_levels_of_boxes_without_area_and_of_images_without_size():
    boxes = tensor([[[0, 0, 0, 0], [0.5, 0.5, 0.5, 0.9], [0.9, 0.9, 0.1, 0.1], [0, 0, 1, 1]]])
    assert array(pyramid_levels(boxes, tensor(1024.0**2)))[0].tolist() == [0, 0, 0, 3]
    assert array(pyramid_levels(boxes, tensor(0.0)))[0].tolist() == [0, 0, 0, 0]


# ------------------------------------------------------------------ targets
@FEW
@given(edge_boxes(4), whole((4,), -1, 3), edge_boxes(10), st.booleans(), st.booleans())
@example(np.zeros((4, 4), np.int32), np.zeros(4, np.int32), np.full((10, 4), (3, 3, 4, 4), np.int32), True, True)
def test_targets_of_any_objects_are_finite(gt_boxes, class_ids, proposals, mini_masks, alone):
    proposals = np.concatenate([proposals, gt_boxes])  # some of them shall fit
    gt, rois = (pixel_boxes.norm_boxes(boxes, (SIDE, SIDE))[None] for boxes in (gt_boxes, proposals))
    masks = np.ones((1, 8, 8, 4), bool)
    options = {"count": 6, "positive_ratio": 0.34, "std_dev": STD_DEV, "mask_shape": (4, 4), "seed": 3}
    out = detection_targets(tensor(rois), tensor(class_ids[None], "int32"), tensor(gt), masks, **options,
                            mini_masks=mini_masks, negatives_alone=alone)  # fmt: skip
    chosen, ids, deltas, crops = (array(x)[0] for x in out)
    assert all(np.isfinite(x).all() for x in (chosen, deltas, crops))
    assert set(ids) <= {0, *class_ids[class_ids > 0]} and not deltas[ids == 0].any() and not crops[ids == 0].any()
    assert np.isin(crops, (0, 1)).all()
    if not alone and not ids.any():
        assert not chosen.any()


@FEW
@given(edge_boxes(4), whole((4,), -1, 3))
def test_anchor_targets_of_any_objects_are_finite(gt_boxes, class_ids):
    config = tiny.config()
    grid = loader.config_grid(config, config.IMAGE_SHAPE)
    match, deltas = build_rpn_targets((SIDE, SIDE, 3), grid, class_ids, gt_boxes, 32, STD_DEV, np.random.default_rng(0))
    assert np.isfinite(deltas).all() and deltas[np.count_nonzero(match == 1):].any() == 0


# ------------------------------------------------------------------ metrics
def drawn(boxes):
    masks = np.zeros((SIDE, SIDE, len(boxes)), bool)
    for n, (y1, x1, y2, x2) in enumerate(boxes):
        masks[y1:y2, x1:x2, n] = True
    return masks


@FEW
@given(st.integers(0, 3).flatmap(edge_boxes), st.integers(0, 4).flatmap(edge_boxes), st.sampled_from([0.0, 0.5, 1.0]))
def test_metrics_of_any_objects_are_shares(truth, found, threshold):
    ids, found_ids, scores = np.ones(len(truth), int), np.ones(len(found), int), np.linspace(1, 0, len(found))
    given_ = (truth, ids, drawn(truth), found, found_ids, scores, drawn(found), threshold)
    average, precisions, recalls, overlaps = metrics.compute_ap(*given_)
    for values in (average, precisions, recalls, overlaps, metrics.compute_recall(found, truth, threshold)[0]):
        assert ((np.asarray(values) >= 0) & (np.asarray(values) <= 1 + 1e-6)).all()
    assert 0 <= metrics.compute_ap_range(*given_[:7], verbose=0) <= 1 + 1e-6


@FEW
@given(st.integers(0, 4).flatmap(edge_boxes))
def test_masks_of_no_and_of_one_pixel(boxes):
    masks = drawn(boxes)
    tight = pixel_masks.extract_bboxes(masks)
    table = pixel_masks.compute_overlaps_masks(masks, masks)
    assert table.shape == (len(boxes),) * 2 and ((table >= 0) & (table <= 1)).all()
    real = np.flatnonzero(masks.any(axis=(0, 1)))
    np.testing.assert_array_equal(tight[real], boxes[real])
    minis = pixel_masks.minimize_mask(tight[real], masks[..., real], (7, 7))
    restored = pixel_masks.expand_mask(tight[real], minis, (SIDE, SIDE))
    np.testing.assert_array_equal(restored, masks[..., real])


# ------------------------------------------------------------------ whole steps
class Edges(tiny.Squares):
    """Images whose objects are the boxes given for each; a box without area is an empty mask."""

    def __init__(self, *objects, class_ids=None):
        super().__init__(len(objects))
        self.objects = [np.array(boxes, np.int32).reshape(-1, 4) for boxes in objects]
        self.class_ids = class_ids

    def load_image(self, image_id):
        return tiny.photo(SIDE, SIDE, image_id)

    def load_mask(self, image_id):
        boxes = self.objects[image_id]
        ids = self.class_ids or [1 + n % 3 for n in range(len(boxes))]
        return drawn(boxes), np.array(ids[:len(boxes)], np.int32)


ONE_PIXEL, CORNER, WHOLE = (20, 31, 21, 32), (0, 0, 1, 1), (0, 0, SIDE, SIDE)
LINE, SQUARE = (7, 0, 8, SIDE), (8, 8, 40, 40)
EDGES = {
    "no objects": [(), ()],
    "one with, one without": [(SQUARE,), ()],
    "one pixel": [(ONE_PIXEL,), (CORNER,)],
    "a line and the whole image": [(LINE,), (WHOLE,)],
    "more than fit": [tuple((2 * n, 2 * n, 2 * n + 9, 2 * n + 9) for n in range(9)), (SQUARE,) * 4],
    "crowds alone": [(SQUARE,), (SQUARE,)],
}


@pytest.fixture(scope="module")
def trainer():
    """A training model of the tiny network that takes images without objects."""
    config = tiny.config(USE_EMPTY_IMAGES=True)
    model = assemble.build_model("training", config)
    model.compile(keras.optimizers.SGD(1e-3))
    return config, model


@pytest.mark.slow
@pytest.mark.parametrize("name", EDGES)
def test_a_step_on_the_edge_is_finite(trainer, name):
    config, model = trainer
    dataset = Edges(*EDGES[name], class_ids=[-1] if name == "crowds alone" else None)
    batch = loader.DataGenerator(dataset, config, shuffle=False)[0]
    assert batch[0][1][:, 0].tolist() == [0, 1]  # none was replaced
    logs = model.train_on_batch(*batch, return_dict=True)
    assert all(np.isfinite(value) for value in logs.values())
    assert all(np.isfinite(weight).all() for weight in tiny.weights_of(model).values())
    if name in ("no objects", "crowds alone"):
        assert logs["rpn_bbox_loss"] == logs["mrcnn_bbox_loss"] == logs["mrcnn_mask_loss"] == 0
        assert logs["rpn_class_loss"] > 0 and logs["mrcnn_class_loss"] > 0


@pytest.mark.slow
def test_an_object_without_a_pixel_is_none(trainer):
    config, _ = trainer
    dataset = Edges((SQUARE, (5, 5, 5, 9)), ((9, 9, 9, 9),))
    with pytest.warns(UserWarning, match="objects in 1 images so far are smaller than a pixel"):
        batch = loader.DataGenerator(dataset, config, shuffle=False)[0]
    assert (batch[0][4] > 0).sum(axis=1).tolist() == [1, 0]


@pytest.mark.slow
def test_images_without_objects_teach_that_there_are_none(model_dir):
    """A data set without a single object trains first stage and class head towards background, and nothing else."""
    from mrcnn.engine.mask_rcnn import MaskRCNN

    watch, config = [], tiny.config(USE_EMPTY_IMAGES=True, STEPS_PER_EPOCH=30)
    report = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: watch.append(dict(logs)))
    model = MaskRCNN("training", config, model_dir)
    model.train(Edges(*[()] * 4), Edges((), ()), 0.02, 1, "all", custom_callbacks=[report])
    # Keras reports means from the start of an epoch on: the last is below the first where most steps were
    for name in ("rpn_class_loss", "mrcnn_class_loss"):
        assert watch[-1][name] < 0.8 * watch[0][name], name
    assert all(step[name] == 0 for step in watch for name in ("rpn_bbox_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss"))
    with pytest.raises(ValueError, match="no image has objects.*USE_EMPTY_IMAGES"):
        MaskRCNN("training", tiny.config(), model_dir).train(Edges((), ()), None, 0.02, 1, "all")
