"""Which classes are taken for which: counted by hand, and the curves beside them."""

import numpy as np
import pytest
from drawn import Drawn, answers, echo, evaluate, nothing, result, several, truth
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.engine import evaluation

DOT, BAR, RING = 1, 2, 3


def matrix(detect, dataset, **options):
    """The counts of `evaluation.confusion`, [4, 4] int."""
    found = evaluation.collect(detect, dataset, list(dataset.image_ids))
    return np.array(evaluation.confusion(found, dataset, **options)["matrix"])


def counted(**cells):
    """A matrix with these cells, t1_f2=3: three objects of class 1 were taken for class 2; 0 is the background."""
    expected = np.zeros((4, 4), int)
    for cell, count in cells.items():
        expected[int(cell[1]), int(cell[4])] = count
    return expected


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_the_truth_itself_lies_on_the_diagonal(kind):
    dataset = several()
    assert np.array_equal(matrix(echo(dataset), dataset, kind=kind), np.diag([0, 3, 2, 0]))


def test_what_is_not_found_is_background():
    dataset = several()
    assert np.array_equal(matrix(nothing, dataset), counted(t1_f0=3, t2_f0=2))


def test_every_kind_of_mistake_by_hand():
    objects = (DOT, 0, 0, 10, 10), (DOT, 0, 20, 10, 30), (BAR, 20, 0, 30, 10), (BAR, 20, 20, 30, 30)
    detections = [
        (DOT, 0, 0, 10, 10),  # right
        (BAR, 0, 20, 10, 30),  # a dot that is taken for a bar
        (BAR, 20, 0, 30, 10),  # right
        (BAR, 20, 0, 30, 9),  # found already
        (RING, 50, 50, 60, 60),  # nothing is there
    ]
    dataset = Drawn(truth(*objects))
    got = matrix(answers(result(*truth(*detections))), dataset)
    assert np.array_equal(got, counted(t1_f1=1, t1_f2=1, t2_f2=1, t2_f0=1, t0_f2=1, t0_f3=1))


def test_an_object_goes_to_its_own_class_before_a_better_score_of_another():
    dataset = Drawn(truth((DOT, 0, 0, 10, 10)))
    masks, class_ids = truth((BAR, 0, 0, 10, 10), (DOT, 0, 0, 10, 9))
    assert np.array_equal(matrix(answers(result(masks, class_ids, [0.9, 0.6])), dataset), counted(t1_f1=1, t0_f2=1))


def test_thresholds_of_overlap_and_score():
    dataset = Drawn(truth((DOT, 0, 0, 10, 10)))
    detect = answers(result(*truth((DOT, 0, 0, 10, 7)), [0.6]))
    assert np.array_equal(matrix(detect, dataset), counted(t1_f1=1))
    assert np.array_equal(matrix(detect, dataset, iou_threshold=0.75), counted(t1_f0=1, t0_f1=1))
    assert np.array_equal(matrix(detect, dataset, score_threshold=0.7), counted(t1_f0=1))


def test_a_detection_in_a_crowd_of_its_class_does_not_count():
    dataset = Drawn(truth((-DOT, 0, 0, 30, 30)))
    detect = answers(result(*truth((DOT, 5, 5, 15, 15), (BAR, 15, 15, 25, 25))))
    assert np.array_equal(matrix(detect, dataset), counted(t0_f2=1))


@st.composite
def scenes(draw):
    """An image's objects and detections, squares on a grid of places."""

    def squares():
        places = st.tuples(st.sampled_from([DOT, BAR, RING]), st.integers(0, 3), st.integers(0, 3), st.integers(7, 10))
        drawn = draw(st.lists(places, max_size=6))
        return [(c, 12 * y, 12 * x, 12 * y + side, 12 * x + side) for c, y, x, side in drawn]

    return squares(), squares()


@given(scenes())
@settings(max_examples=60, deadline=None)
def test_every_object_and_every_detection_is_counted_once(scene):
    objects, detections = scene
    dataset = Drawn(truth(*objects))
    _, class_ids = dataset.load_mask(0)
    got = matrix(answers(result(*truth(*detections))), dataset)
    assert got[1:].sum(axis=1).tolist() == [int((class_ids == number).sum()) for number in (DOT, BAR, RING)]
    names = [class_id for class_id, *_ in detections]
    assert got[:, 1:].sum(axis=0).tolist() == [names.count(number) for number in (DOT, BAR, RING)]
    assert got[0, 0] == 0


def test_the_result_of_an_evaluation_holds_curves_and_confusion():
    """Two dots of which one is found, after a mistake of a higher score."""
    dataset = Drawn(truth((DOT, 0, 0, 10, 10), (DOT, 30, 30, 40, 40)))
    got = evaluate(answers(result(*truth((DOT, 0, 0, 10, 10), (DOT, 50, 50, 60, 60)), [0.8, 0.9])), dataset)
    assert got["confusion"]["names"] == ["BG", "dot", "bar", "ring"]
    assert np.array_equal(got["confusion"]["matrix"], counted(t1_f1=1, t1_f0=1, t0_f1=1))
    recalls, curve = got["curves"]["recalls"], got["curves"]["segm"]["per_class"]["dot"]
    assert recalls == pytest.approx(np.linspace(0, 1, 101).tolist())
    assert curve == [0.5] * 51 + [0.0] * 50
    assert got["curves"]["segm"]["mean"]["0.50"] == curve and list(got["curves"]["bbox"]["per_class"]) == ["dot"]
