import golden_files
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrcnn.geometry import metrics

FUNCTIONS = ["compute_matches", "compute_ap", "compute_ap_range", "compute_recall"]


def scene(*objects, side=40):
    """(boxes, class ids, masks) of rectangles given as (y1, x1, y2, x2, class)."""
    boxes = np.array([o[:4] for o in objects], np.int32).reshape(-1, 4)
    masks = np.zeros((side, side, len(objects)), bool)
    for i, (y1, x1, y2, x2) in enumerate(boxes):
        masks[y1:y2, x1:x2, i] = True
    return boxes, np.array([o[4] for o in objects], np.int32), masks


def predicted(scores, *objects):
    boxes, class_ids, masks = scene(*objects)
    return boxes, class_ids, np.array(scores, np.float32), masks


A, B = (0, 0, 10, 10, 1), (20, 20, 30, 30, 2)


@pytest.mark.parametrize("case", golden_files.cases("utils", *FUNCTIONS), ids=str)
def test_golden(case):
    case.check(metrics)


# ------------------------------------------------------------------ matches
def test_the_better_of_two_predictions_takes_the_object():
    gt_match, pred_match, overlaps = metrics.compute_matches(*scene(A, B), *predicted([0.6, 0.9, 0.7], A, A, B))
    assert pred_match.tolist() == [0, 1, -1]
    assert gt_match.tolist() == [0, 1]
    assert overlaps.shape == (3, 2)


def test_classes_must_agree():
    wrong = predicted([0.9], (*A[:4], 2))
    assert metrics.compute_matches(*scene(A), *wrong)[1].tolist() == [-1]


def test_score_threshold_is_compared_with_scores():
    predictions = predicted([0.9, 0.3], A, B)
    for threshold, found in ((0.0, [0, 1]), (0.3, [0, 1]), (0.31, [0, -1]), (0.95, [-1, -1])):
        gt_match, pred_match, overlaps = metrics.compute_matches(*scene(A, B), *predictions, score_threshold=threshold)
        assert pred_match.tolist() == found
        assert overlaps.shape == (2, 2)
        assert (gt_match > -1).sum() == (pred_match > -1).sum()


def test_padding_may_lie_anywhere():
    boxes, class_ids, masks = scene(A, (0, 0, 0, 0, 0), B)
    gt_match, pred_match, _ = metrics.compute_matches(boxes, class_ids, masks, *predicted([0.5, 0.9], A, B))
    assert gt_match.tolist() == [1, 0] and pred_match.tolist() == [1, 0]


@given(st.data())
def test_matches_point_at_each_other(data):
    thing = st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 15)] * 2, st.integers(1, 2))
    things = st.lists(thing.map(lambda t: (t[0], t[1], t[0] + t[2], t[1] + t[3], t[4])), max_size=6)
    truth, guesses = data.draw(things), data.draw(things)
    scores = data.draw(st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=len(guesses), max_size=len(guesses)))
    threshold = data.draw(st.sampled_from([0.1, 0.5, 0.9]))
    gt, pred = scene(*truth), predicted(scores, *guesses)
    gt_match, pred_match, overlaps = metrics.compute_matches(*gt, *pred, threshold)
    for i, j in enumerate(pred_match.astype(int)):
        if j > -1:
            assert gt_match[j] == i and overlaps[i, j] >= threshold
    assert (gt_match > -1).sum() == (pred_match > -1).sum()
    ap, precisions, recalls, _ = metrics.compute_ap(*gt, *pred, threshold)
    assert 0 <= ap <= 1 + 1e-6
    assert (np.diff(precisions) <= 0).all() and (np.diff(recalls) >= 0).all()


# ------------------------------------------------------------------ average precision
def test_average_precision_of_two_hits_and_a_miss():
    ap, precisions, recalls, _ = metrics.compute_ap(*scene(A, B), *predicted([0.9, 0.8, 0.7], A, (0, 30, 5, 35, 1), B))
    assert ap == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    np.testing.assert_allclose(precisions, [1, 1, 2 / 3, 2 / 3, 0])
    np.testing.assert_allclose(recalls, [0, 0.5, 0.5, 1, 1])


@pytest.mark.parametrize("guesses", [[], [A], [A, B]])
def test_without_ground_truth_it_is_zero(guesses):
    assert metrics.compute_ap(*scene(), *predicted([0.5] * len(guesses), *guesses))[0] == 0


def test_masks_count_and_not_boxes():
    boxes, class_ids, masks = scene(A)
    guess = masks.copy()
    guess[4:] = False
    assert metrics.compute_ap(boxes, class_ids, masks, boxes, class_ids, [0.9], guess)[0] == 0


def test_range_takes_arrays_and_prints_each_value(capsys):
    value = metrics.compute_ap_range(*scene(A), *predicted([0.9], (0, 0, 10, 8, 1)), np.array([0.5, 0.75, 0.9]))
    assert value == pytest.approx(2 / 3)
    assert capsys.readouterr().out.splitlines() == [
        "AP @0.50:\t 1.000", "AP @0.75:\t 1.000", "AP @0.90:\t 0.000", "AP @0.50-0.90:\t 0.667",
    ]


def test_range_is_the_mean_over_cocos_ten_thresholds(capsys):
    pair = (*scene(A, B), *predicted([0.9, 0.8], (0, 0, 10, 8, 1), (20, 20, 30, 26, 2)))
    values = [metrics.compute_ap(*pair, iou_threshold=t)[0] for t in np.arange(0.5, 1.0, 0.05)]
    assert metrics.compute_ap_range(*pair, verbose=0) == pytest.approx(np.mean(values))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("thresholds", [[], 0.5])
def test_range_needs_thresholds(thresholds):
    with pytest.raises(ValueError, match="iou_thresholds"):
        metrics.compute_ap_range(*scene(A), *predicted([0.9], A), thresholds)


def test_counts_that_do_not_fit_are_named():
    boxes, class_ids, masks = scene(A, B)
    with pytest.raises(ValueError, match=r"gt_masks has room for 1 instances .* row 1"):
        metrics.compute_ap(boxes, class_ids, masks[..., :1], *predicted([0.9], A))
    with pytest.raises(ValueError, match="pred_scores"):
        metrics.compute_ap(boxes, class_ids, masks, boxes, class_ids, [0.9], masks)


# ------------------------------------------------------------------ recall
def test_recall_counts_each_object_once():
    boxes = scene(A, B)[0]
    recall, positive_ids = metrics.compute_recall(np.concatenate([boxes[:1], boxes[:1], [[0, 30, 5, 35]]]), boxes, 0.5)
    assert recall == 0.5 and positive_ids.tolist() == [0, 1]


def test_recall_of_nothing_is_zero():
    boxes = scene(A)[0]
    for pred, gt in ((boxes, boxes[:0]), (boxes[:0], boxes)):
        recall, positive_ids = metrics.compute_recall(pred, gt, 0.5)
        assert recall == 0 and positive_ids.size == 0
