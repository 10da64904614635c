"""Anchors and regions that training learns from."""

import numpy as np
import pytest
from golden_files import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.config import Config
from mrcnn.data import targets
from mrcnn.geometry.anchors import AnchorGrid, backbone_shapes, generate_pyramid_anchors
from mrcnn.geometry.boxes import apply_box_deltas, box_refinement, compute_iou, compute_overlaps

STD_DEV = np.array([0.1, 0.1, 0.2, 0.2])
SHAPE = (64, 96, 3)
ANCHORS = generate_pyramid_anchors((8, 16, 32), [0.5, 1, 2], backbone_shapes(SHAPE, (4, 8, 16)), (4, 8, 16), 1)


class WithConfig:
    """The functions with the signatures of the golden cases."""

    @staticmethod
    def build_rpn_targets(image_shape, anchors, gt_class_ids, gt_boxes, config):
        return targets.build_rpn_targets(
            image_shape, anchors, gt_class_ids, gt_boxes, config.RPN_TRAIN_ANCHORS_PER_IMAGE, config.RPN_BBOX_STD_DEV
        )

    @staticmethod
    def build_detection_targets(rpn_rois, gt_class_ids, gt_boxes, gt_masks, config):
        return targets.build_detection_targets(
            rpn_rois, gt_class_ids, gt_boxes, gt_masks, config.NUM_CLASSES, config.TRAIN_ROIS_PER_IMAGE,
            config.ROI_POSITIVE_RATIO, config.BBOX_STD_DEV, config.MASK_SHAPE,
            config.IMAGE_SHAPE if config.USE_MINI_MASK else None,
        )  # fmt: skip

    generate_random_rois = staticmethod(targets.generate_random_rois)


GOLDEN = cases("model_functions", "build_rpn_targets", "build_detection_targets", "generate_random_rois")


@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_golden(case):
    """Also where the original draws at random: numpy's global generator is asked in the same order."""
    case.check(WithConfig, config=Config)


@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_golden_dtypes(case):
    got = case.run(WithConfig, config=Config)
    assert [g.dtype for g in got] == [w.dtype for w in case.outs().values()]


def boxes(least=0):
    """Up to four boxes within SHAPE, as an array [N, 4]."""

    def build(draw_from):
        return np.array([[y, x, min(y + h, 64), min(x + w, 96)] for y, x, h, w in draw_from], np.int32).reshape(-1, 4)

    box = st.tuples(st.integers(0, 63), st.integers(0, 95), st.integers(1, 40), st.integers(1, 40))
    return st.lists(box, min_size=least, max_size=4).map(build)


def rpn_targets(class_ids, gt_boxes, per_image=4000, seed=0):
    rng = np.random.default_rng(seed)
    return targets.build_rpn_targets(SHAPE, ANCHORS, np.array(class_ids), gt_boxes, per_image, STD_DEV, rng)


# ------------------------------------------------------------------ RPN
@settings(max_examples=40, deadline=None)
@given(boxes())
def test_rpn_rules(gt_boxes):
    """With room for all anchors the rules of the paper hold, object by object."""
    match, _ = rpn_targets([1] * len(gt_boxes), gt_boxes)
    overlaps = compute_overlaps(ANCHORS, gt_boxes) if len(gt_boxes) else np.zeros((len(ANCHORS), 1))
    best = overlaps.max(axis=1)
    is_best_of_an_object = ((overlaps == overlaps.max(axis=0)) & (overlaps > 0)).any(axis=1)
    np.testing.assert_array_equal(match == 1, (best >= 0.7) | is_best_of_an_object)
    np.testing.assert_array_equal(match == -1, (best < 0.3) & (match != 1))


@settings(max_examples=40, deadline=None)
@given(boxes(1), st.integers(0, 2**31))
def test_rpn_deltas_lead_to_the_best_object(gt_boxes, seed):
    match, deltas = rpn_targets([1] * len(gt_boxes), gt_boxes, 64, seed)
    positive = ANCHORS[match == 1]
    moved = apply_box_deltas(positive, deltas[: len(positive)] * STD_DEV)
    best = gt_boxes[compute_overlaps(positive, gt_boxes).argmax(axis=1)]
    np.testing.assert_allclose(moved, best, atol=0.01)
    assert not deltas[len(positive) :].any()


@settings(max_examples=20, deadline=None)
@given(boxes(), st.integers(2, 40), st.integers(0, 2**31))
def test_rpn_counts(gt_boxes, per_image, seed):
    """At most half are positive, negatives fill up, and the draw follows from the generator alone."""
    match, _ = rpn_targets([1] * len(gt_boxes), gt_boxes, per_image, seed)
    assert np.count_nonzero(match == 1) <= per_image // 2
    assert np.count_nonzero(match) == per_image
    np.testing.assert_array_equal(match, rpn_targets([1] * len(gt_boxes), gt_boxes, per_image, seed)[0])


def test_a_crowd_is_neither_object_nor_background():
    crowd = np.array([[0, 0, 32, 32]])
    match, deltas = rpn_targets([-1], crowd)
    touches = compute_overlaps(ANCHORS, crowd)[:, 0] >= 0.001
    assert touches.any() and (match[touches] == 0).all() and (match[~touches] == -1).all()
    assert not deltas.any()


def test_an_object_within_a_crowd_still_counts():
    match, _ = rpn_targets([1, -1], np.array([[8, 8, 24, 24], [0, 0, 64, 96]]))
    assert (match == 1).any() and not (match == -1).any()


def test_a_box_that_no_anchor_touches_forces_none():
    """Its best overlap is 0, like that of all anchors of the image."""
    match, _ = rpn_targets([1], np.array([[500, 500, 520, 520]]))
    assert (match == -1).all()


def test_zero_rows_are_no_objects():
    match, _ = rpn_targets([1, 0], np.array([[8, 8, 24, 24], [0, 0, 0, 0]]))
    np.testing.assert_array_equal(match, rpn_targets([1], np.array([[8, 8, 24, 24]]))[0])


# ------------------------------------------------------------------ only the anchors near objects
def full_comparison(anchors, class_ids, gt_boxes, per_image, rng):
    """The original's way: every anchor with every box, all of it in memory."""
    objects, crowds = gt_boxes[class_ids > 0], gt_boxes[class_ids < 0]
    areas = (anchors[:, 2] - anchors[:, 0]) * (anchors[:, 3] - anchors[:, 1])

    def table(boxes):
        columns = [compute_iou(box, anchors, (box[2] - box[0]) * (box[3] - box[1]), areas) for box in boxes]
        return np.array([np.zeros(len(anchors)), *columns]).T

    iou = table(objects)
    match = np.zeros(len(anchors), np.int32)
    match[(iou.max(axis=1) < 0.3) & (table(crowds).max(axis=1) < 0.001)] = -1
    match[((iou == iou.max(axis=0)) & (iou > 0)).any(axis=1) | (iou >= 0.7).any(axis=1)] = 1
    for value, limit in ((1, per_image // 2), (-1, None)):
        found = np.flatnonzero(match == value)
        surplus = len(found) - (per_image - np.count_nonzero(match == 1) if limit is None else limit)
        if surplus > 0:
            match[rng.choice(found, surplus, replace=False)] = 0
    positive = np.flatnonzero(match == 1)
    deltas = np.zeros((per_image, 4))
    if len(positive):
        best = np.maximum(iou[positive, 1:].argmax(axis=1), 0)
        deltas[: len(positive)] = box_refinement(anchors[positive], objects[best]) / STD_DEV
    return match, deltas


@st.composite
def grids(draw):
    """An `AnchorGrid` of a few levels, and the shape of its image."""
    strides = draw(st.sampled_from([(4,), (4, 8), (8, 16, 32), (4, 8, 16, 32, 64)]))
    scale = draw(st.sampled_from([2, 4, 8, 13.7]))
    scales = [scale * stride for stride in strides]
    if draw(st.booleans()):
        scales = [(side, 1.26 * side) for side in scales]
    shape = draw(st.tuples(st.integers(1, 150), st.integers(1, 150)))
    ratios = draw(st.sampled_from([[1], [0.5, 1, 2], [0.31, 1, 1, 4.7]]))
    grid = AnchorGrid(scales, ratios, backbone_shapes(shape, strides), strides, draw(st.sampled_from([1, 2])))
    return grid, shape


@st.composite
def objects_around(draw, shape):
    """Boxes within, across and outside of an image, some without area, some twice, some where an anchor is."""
    sides = st.one_of(st.integers(1, 8), st.integers(0, 400))
    corners = st.integers(-60, 200)
    rows = draw(st.lists(st.tuples(corners, corners, sides, sides), max_size=8))
    rows += draw(st.lists(st.sampled_from([(0, 0, 32, 32), (-16, -16, 32, 32), (0, 0, *shape)]), max_size=2))
    found = np.array(rows + rows[:draw(st.integers(0, 2))], draw(st.sampled_from(["i4", "i8", "f4", "f8"])))
    found = found.reshape(-1, 4)
    found[:, 2:] += found[:, :2]
    ids = draw(st.lists(st.sampled_from([1, 1, 2, -1, 0]), min_size=len(found), max_size=len(found)))
    return np.array(ids, np.int32), found


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(2, 300), st.integers(0, 2**31))
def test_a_look_near_the_objects_is_enough(data, per_image, seed):
    grid, shape = data.draw(grids())
    class_ids, gt_boxes = data.draw(objects_around(shape))
    with np.errstate(all="ignore"):
        area = gt_boxes[:, 2:] > gt_boxes[:, :2]
    class_ids = np.where(area.all(axis=1), class_ids, 0)  # deltas of a box without area are refused anyway
    rngs = [np.random.default_rng(seed) for _ in range(3)]
    want = full_comparison(grid.anchors, class_ids, gt_boxes, per_image, rngs[0])
    for anchors, rng in zip((grid, grid.anchors), rngs[1:]):
        got = targets.build_rpn_targets(shape, anchors, class_ids, gt_boxes, per_image, STD_DEV, rng)
        for g, w in zip(got, want):
            np.testing.assert_array_equal(g, w)
            assert g.dtype == w.dtype
    assert rngs[0].random() == rngs[1].random() == rngs[2].random()  # they were asked for the same


@settings(max_examples=60, deadline=None)
@given(st.data(), st.floats(0.001, 0.9))
def test_pairs_of_a_grid_are_those_of_the_full_table(data, least):
    grid, shape = data.draw(grids())
    _, gt_boxes = data.draw(objects_around(shape))
    grid._PAIRS = data.draw(st.sampled_from([1, 100, 2**18]))
    table = np.zeros((len(gt_boxes), len(grid.anchors)))
    box_ids, anchor_ids, iou = grid.pairs(gt_boxes, least)
    table[box_ids, anchor_ids] = iou
    want = compute_overlaps(gt_boxes, grid.anchors) if len(gt_boxes) else table
    np.testing.assert_array_equal(table, np.where(want >= least, want, 0))

    best = np.zeros(table.shape, bool)
    best[grid.best_pairs(gt_boxes)[:2]] = True
    np.testing.assert_array_equal(best, (want == want.max(axis=1, keepdims=True)) & (want > 0))


@pytest.mark.parametrize("box", [[0, 0, 60000, 60000], [0, 0, np.nan, 20], [0, 0, np.inf, 20]])
def test_boxes_out_of_all_bounds_are_compared_with_all_anchors(box):
    grid = AnchorGrid((8, 16, 32), [0.5, 1, 2], backbone_shapes(SHAPE, (4, 8, 16)), (4, 8, 16), 1)
    assert not grid.takes(np.array([box], float))
    assert not grid.takes(np.array([[0, 0, 20, 20]], np.int16))  # its areas overflow
    match, _ = targets.build_rpn_targets(SHAPE, grid, [-1], np.array([box], float), 64, STD_DEV)
    assert match.shape == (len(ANCHORS),)


def test_negatives_are_drawn_from_numpys_global_generator_as_ever():
    grid = AnchorGrid((8, 16, 32), [0.5, 1, 2], backbone_shapes(SHAPE, (4, 8, 16)), (4, 8, 16), 1)
    class_ids, gt_boxes = np.array([1, 2]), np.array([[8, 8, 24, 30], [30, 30, 60, 90]])
    want = full_comparison(ANCHORS, class_ids, gt_boxes, 20, np.random.RandomState(5))
    np.random.seed(5)
    got = targets.build_rpn_targets(SHAPE, grid, class_ids, gt_boxes, 20, STD_DEV)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])


# ------------------------------------------------------------------ random regions
@settings(max_examples=40, deadline=None)
@given(boxes(), st.integers(1, 60), st.integers(0, 2**31))
def test_random_rois_lie_within_the_image(gt_boxes, count, seed):
    def draw():
        rng = np.random.default_rng(seed)
        return targets.generate_random_rois(SHAPE, count, np.ones(len(gt_boxes), int), gt_boxes, rng)

    rois = draw()
    assert rois.shape == (count, 4) and rois.dtype == np.int32
    assert (rois[:, :2] >= 0).all() and (rois[:, 2:] <= SHAPE[:2]).all() and (rois[:, :2] < rois[:, 2:]).all()
    np.testing.assert_array_equal(rois, draw())


def test_nine_of_ten_random_rois_are_near_objects():
    rois = targets.generate_random_rois((1000, 1000, 3), 100, [1, 1], [[10, 10, 20, 20], [900, 900, 920, 930]])
    assert (rois[:45] <= 30).all()
    assert (rois[45:90] >= [880, 870, 880, 870]).all() and (rois[45:90] <= [940, 960, 940, 960]).all()
    assert (rois[90:].max(axis=1) > 30).any()


def test_random_rois_need_room():
    with pytest.raises(ValueError, match="within the image"):
        targets.generate_random_rois((64, 64, 3), 10, [1], [[64, 0, 65, 10]])
    with pytest.raises(ValueError, match="no room"):
        targets.generate_random_rois((1, 64, 3), 10, [], np.zeros((0, 4)))


# ------------------------------------------------------------------ detection targets
def detection_targets(rois, class_ids=(2,), gt_boxes=((10, 10, 30, 30),), count=8, ratio=0.5):
    masks = np.zeros((64, 96, len(class_ids)), bool)
    for i, (y1, x1, y2, x2) in enumerate(gt_boxes):
        masks[y1:y2, x1:x2, i] = True
    rng = np.random.default_rng(3)
    return targets.build_detection_targets(
        np.array(rois), np.array(class_ids), np.array(gt_boxes), masks, 4, count, ratio, STD_DEV, (7, 7), rng=rng
    )


def test_detection_targets_of_object_and_background():
    rois, class_ids, deltas, masks = detection_targets([[10, 10, 30, 30], [10, 10, 30, 26], [40, 40, 60, 60]], count=3,
                                                       ratio=0.7)
    assert class_ids.tolist() == [2, 2, 0]
    moved = apply_box_deltas(rois[:2], deltas[:2, 2] * STD_DEV)
    np.testing.assert_allclose(moved, [[10, 10, 30, 30]] * 2, atol=1e-4)
    assert (masks[:2, :, :, 2] == 1).all()
    assert not deltas[:, [0, 1, 3]].any() and not masks[..., [0, 1, 3]].any() and not masks[2].any()


def test_detection_targets_repeat_what_there_is():
    rois, class_ids, _, _ = detection_targets([[10, 10, 30, 30], [40, 40, 60, 60]], count=8)
    assert rois.shape == (8, 4) and class_ids.shape == (8,)
    assert set(map(tuple, rois)) == {(10, 10, 30, 30), (40, 40, 60, 60)}
    np.testing.assert_array_equal(class_ids == 2, rois[:, 0] == 10)


def test_detection_targets_limit_the_objects():
    _, class_ids, _, _ = detection_targets([[10, 10, 30, 30]] * 6 + [[40, 40, 60, 60]] * 6, count=8, ratio=0.33)
    assert np.count_nonzero(class_ids) == 2


def test_padding_and_crowds_are_no_objects_of_the_heads():
    gt_boxes = [[0, 0, 0, 0], [10, 10, 30, 30], [40, 40, 60, 60]]
    _, class_ids, _, _ = detection_targets([[10, 10, 30, 30], [40, 40, 60, 60]], [0, 3, -1], gt_boxes, count=2)
    assert class_ids.tolist() == [3, 0]


def test_detection_targets_of_nothing_but_background_where_that_is_wanted():
    rois = np.array([[10, 10, 30, 30], [40, 40, 60, 60]])
    nothing = (np.zeros(0, int), np.zeros((0, 4), int), np.zeros((64, 96, 0), bool), 4, 8, 0.5, STD_DEV, (7, 7))
    rng = np.random.default_rng(3)
    chosen, class_ids, deltas, masks = targets.build_detection_targets(rois, *nothing, rng=rng, negatives_alone=True)
    assert chosen.shape == (8, 4) and not class_ids.any() and not deltas.any() and not masks.any()
    assert deltas.shape == (8, 4, 4) and masks.shape == (8, 7, 7, 4)


@pytest.mark.parametrize(
    ("rois", "class_ids", "message"),
    [
        (np.zeros((0, 4)), [1], "0 regions"),
        ([[10, 10, 30, 30]], [-1], "at least one region and one object"),
        ([[10, 10, 30, 20]], [1], "clearly"),  # an overlap of exactly a half
    ],
)
def test_detection_targets_of_nothing(rois, class_ids, message):
    with pytest.raises(ValueError, match=message):
        detection_targets(rois, class_ids)
