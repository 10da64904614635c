"""Masks within their boxes are the masks that the functions for whole arrays make."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mrcnn.geometry import masks
from mrcnn.geometry.boxed import BoxedMasks

STACKS = hnp.arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14), st.integers(0, 4)))
SCALES = st.one_of(st.sampled_from([0.5, 1, 2]), st.floats(0.05, 4))
PADDINGS = st.tuples(*[st.tuples(st.integers(0, 5), st.integers(0, 5))] * 2).map(lambda sides: [*sides, (0, 0)])


def assert_are(boxed, full):
    assert boxed.full().shape == full.shape and len(boxed) == full.shape[2]
    np.testing.assert_array_equal(boxed.full(), full)
    np.testing.assert_array_equal(boxed.boxes, masks.extract_bboxes(full))
    assert boxed.boxes.dtype == np.int32
    assert [list(part.shape) for part in boxed.parts] == (boxed.boxes[:, 2:] - boxed.boxes[:, :2]).tolist()


@given(STACKS, st.sampled_from([bool, np.uint8, np.float32]))
def test_cut_and_whole_again(stack, dtype):
    assert_are(BoxedMasks.cut(stack.astype(dtype)), stack)


@given(STACKS, SCALES, PADDINGS)
def test_scaled_and_padded(stack, scale, padding):
    assert_are(BoxedMasks.cut(stack).scaled(scale).placed(padding), masks.resize_mask(stack, scale, padding))


@given(STACKS, SCALES, st.data())
def test_scaled_and_cropped(stack, scale, data):
    scaled = BoxedMasks.cut(stack).scaled(scale)
    top, left = data.draw(st.integers(0, scaled.height - 1)), data.draw(st.integers(0, scaled.width - 1))
    crop = (top, left, data.draw(st.integers(1, scaled.height)), data.draw(st.integers(1, scaled.width)))
    padding = [(0, 0), (0, 0), (0, 0)]
    assert_are(scaled.placed(padding, crop), masks.resize_mask(stack, scale, padding, crop))


@given(STACKS, st.integers(1, 20), st.integers(1, 20))
def test_mini_masks(stack, height, width):
    boxed = BoxedMasks.cut(stack)
    visible = boxed.boxes[:, 2] > 0
    kept = stack[..., visible]
    minis = boxed.chosen(visible).mini((height, width))
    np.testing.assert_array_equal(minis, masks.minimize_mask(masks.extract_bboxes(kept), kept, (height, width)))
    assert minis.dtype == bool


@given(STACKS)
def test_boxes_may_be_larger_than_needed(stack):
    height, width, count = stack.shape
    boxes = [[0, 0, height, width]] * count
    assert_are(BoxedMasks(height, width, boxes, list(np.moveaxis(stack, -1, 0))), stack)


def test_parts_must_fit_their_boxes_and_the_image():
    with pytest.raises(ValueError, match=r"\[\[2, 3\]\]; received \[\[3, 2\]\]"):
        BoxedMasks(9, 9, [[0, 0, 2, 3]], [np.ones((3, 2), bool)])
    with pytest.raises(ValueError, match="within the image of 9 x 2"):
        BoxedMasks(9, 2, [[0, 0, 2, 3]], [np.ones((2, 3), bool)])
    with pytest.raises(ValueError, match="within the image"):
        BoxedMasks(9, 9, [[-1, 0, 2, 3]], [np.ones((3, 3), bool)])


def test_bytes_are_counted():
    boxed = BoxedMasks(1000, 1000, [[5, 5, 105, 105]], [np.ones((100, 100), bool)])
    assert 10_000 <= boxed.nbytes < 11_000
