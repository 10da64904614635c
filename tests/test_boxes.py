import golden_files
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mrcnn.geometry import boxes

FUNCTIONS = [
    "compute_iou", "compute_overlaps", "non_max_suppression", "apply_box_deltas", "box_refinement", "norm_boxes",
    "denorm_boxes", "trim_zeros",
]


@st.composite
def some_boxes(draw, max_size=12, side=100, min_side=1):
    """[N, 4] int32 boxes of at least `min_side` pixels within (0, 0, side, side)."""
    corner = st.integers(0, side - min_side)
    corners = draw(st.lists(st.tuples(corner, corner), min_size=1, max_size=max_size))
    rows = [
        (y, x, draw(st.integers(y + min_side, side)), draw(st.integers(x + min_side, side))) for y, x in corners
    ]
    return np.array(rows, np.int32)


@pytest.mark.parametrize("case", golden_files.cases("utils", *FUNCTIONS), ids=str)
def test_golden(case):
    case.check(boxes)


# ------------------------------------------------------------------ overlaps
@given(some_boxes(), some_boxes())
def test_overlaps_are_symmetric_shares(a, b):
    overlaps = boxes.compute_overlaps(a, b)
    assert overlaps.shape == (len(a), len(b))
    assert ((overlaps >= 0) & (overlaps <= 1)).all()
    np.testing.assert_array_equal(overlaps, boxes.compute_overlaps(b, a).T)
    np.testing.assert_array_equal(np.diag(boxes.compute_overlaps(a, a)), 1)


@given(some_boxes(side=12), some_boxes(side=12))
def test_overlaps_count_pixels(a, b):
    def drawn(rows):
        planes = np.zeros((len(rows), 12, 12), bool)
        for plane, (y1, x1, y2, x2) in zip(planes, rows):
            plane[y1:y2, x1:x2] = True
        return planes

    for i, p in enumerate(drawn(a)):
        for j, q in enumerate(drawn(b)):
            assert boxes.compute_overlaps(a, b)[i, j] == pytest.approx((p & q).sum() / (p | q).sum())


BOX_TYPES = st.sampled_from([np.int32, np.int64, np.float32, np.float64])


@given(st.integers(0, 30), st.integers(0, 30), BOX_TYPES, BOX_TYPES, st.integers(0, 2**32), st.integers(1, 64))
def test_a_table_is_made_of_the_same_numbers_as_its_columns(n, m, dtype1, dtype2, seed, pairs):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-5, 30, (n, 4)).astype(dtype1), rng.integers(-5, 30, (m, 4)).astype(dtype2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boxes, "_PAIRS", pairs)
        table = boxes.compute_overlaps(a, b)
    areas = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    for i, box in enumerate(b):
        area = (box[2] - box[0]) * (box[3] - box[1])
        np.testing.assert_array_equal(table[:, i], boxes.compute_iou(box, a, area, areas))
    assert table.shape == (n, m) and table.dtype == np.float64 and table.flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_boxes_without_area_overlap_nothing(dtype):
    flat = np.array([[3, 3, 3, 9], [0, 0, 0, 0]], dtype)
    np.testing.assert_array_equal(boxes.compute_overlaps(flat, flat), np.zeros((2, 2)))


def test_no_boxes_give_an_empty_table():
    assert boxes.compute_overlaps(np.zeros((0, 4)), np.ones((3, 4))).shape == (0, 3)
    assert boxes.compute_overlaps(np.ones((3, 4)), np.zeros((0, 4))).shape == (3, 0)


@pytest.mark.parametrize(("first", "second", "name"), [((4,), (2, 4), "boxes1"), ((2, 4), (2, 5), "boxes2")])
def test_overlaps_refuse_other_shapes(first, second, name):
    with pytest.raises(ValueError, match=name):
        boxes.compute_overlaps(np.ones(first), np.ones(second))


# ------------------------------------------------------------------ non-maximum suppression
@given(some_boxes(), st.floats(0, 1), st.randoms(use_true_random=False))
def test_nms_keeps_the_best_and_nothing_that_overlaps(rows, threshold, rng):
    scores = np.array([rng.random() for _ in rows], np.float32)
    kept = boxes.non_max_suppression(rows, scores, threshold)
    assert kept.dtype == np.int32
    assert (np.diff(scores[kept]) <= 0).all()
    overlaps = boxes.compute_overlaps(rows, rows[kept])
    assert (np.triu(overlaps[kept], 1) <= threshold + 1e-6).all()
    for i in set(range(len(rows))) - set(kept.tolist()):
        better = scores[kept] >= scores[i]
        assert (overlaps[i, better] > threshold - 1e-6).any()


def test_nms_keeps_boxes_exactly_at_the_threshold():
    rows = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)
    assert boxes.non_max_suppression(rows, np.array([0.9, 0.8]), 0.5).tolist() == [0, 1]
    assert boxes.non_max_suppression(rows, np.array([0.9, 0.8]), 0.49).tolist() == [0]


def test_nms_refuses_nothing_and_wrong_counts():
    with pytest.raises(ValueError, match="boxes is empty"):
        boxes.non_max_suppression(np.zeros((0, 4)), np.zeros(0), 0.5)
    with pytest.raises(ValueError, match=r"scores .* \(3,\) for 2 boxes"):
        boxes.non_max_suppression(np.ones((2, 4)), np.ones(3), 0.5)


# ------------------------------------------------------------------ deltas
@given(some_boxes(max_size=6, min_side=4), st.data())
def test_refinement_is_undone_by_the_deltas(rows, data):
    targets = data.draw(some_boxes(max_size=6, min_side=4))
    n = min(len(rows), len(targets))
    deltas = boxes.box_refinement(rows[:n], targets[:n])
    assert deltas.dtype == np.float32
    np.testing.assert_allclose(boxes.apply_box_deltas(rows[:n], deltas), targets[:n], atol=1e-3)


@given(hnp.arrays(np.float32, (5, 4), elements=st.floats(-1e4, 1e4, width=32)))
def test_deltas_never_overflow(deltas):
    rows = np.tile(np.array([[0.2, 0.2, 0.4, 0.6]], np.float32), (5, 1))
    moved = boxes.apply_box_deltas(rows, deltas)
    assert np.isfinite(moved).all()
    # Corners far away are rounded to single precision.
    rounding = 1e-6 * np.abs(moved).max()
    assert (moved[:, 2] - moved[:, 0] <= 0.2 * 62.5 + 1e-3 + rounding).all()


def test_deltas_up_to_the_limit_count_in_full():
    limit = float(boxes.MAX_LOG_RATIO)
    rows = np.array([[0, 0, 16, 16]] * 3, np.float32)
    deltas = np.array([[0, 0, limit * share, 0] for share in (0.9, 1, 1.1)])
    heights = np.diff(boxes.apply_box_deltas(rows, deltas)[:, [0, 2]])[:, 0]
    np.testing.assert_allclose(heights, [16 * np.exp(0.9 * limit), 1000, 1000], rtol=1e-5)


def test_refinement_names_the_first_box_without_area():
    good, bad = [[0, 0, 5, 5]] * 2, [[0, 0, 5, 5], [3, 3, 3, 9]]
    with pytest.raises(ValueError, match=r"box\[1\] = \[3.0, 3.0, 3.0, 9.0\]"):
        boxes.box_refinement(bad, good)
    with pytest.raises(ValueError, match=r"gt_box\[1\]"):
        boxes.box_refinement(good, bad)
    with pytest.raises(ValueError, match="2 and 1"):
        boxes.box_refinement(good, good[:1])


# ------------------------------------------------------------------ coordinates
@given(some_boxes(side=64), st.integers(64, 2000), st.integers(64, 2000))
def test_normalized_boxes_come_back(rows, h, w):
    normalized = boxes.norm_boxes(rows, (h, w))
    assert normalized.dtype == np.float32
    assert ((normalized >= 0) & (normalized <= 1)).all()
    np.testing.assert_array_equal(boxes.denorm_boxes(normalized, (h, w, 3)), rows)


def test_the_whole_image_is_one():
    np.testing.assert_array_equal(boxes.norm_boxes([[0, 0, 48, 64]], (48, 64)), [[0, 0, 1, 1]])


def test_an_image_of_one_pixel_has_finite_boxes():
    assert np.isfinite(boxes.norm_boxes([[0, 0, 1, 1]], (1, 1))).all()


def test_trim_zeros_drops_rows_of_zeros_only():
    x = np.array([[0, 0], [0, 3], [0, 0], [1, 0]])
    np.testing.assert_array_equal(boxes.trim_zeros(x), [[0, 3], [1, 0]])
    with pytest.raises(ValueError, match="rows and columns"):
        boxes.trim_zeros(np.zeros(4))
