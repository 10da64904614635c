import pickle
from pathlib import Path

import golden_files
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mrcnn.geometry import images, masks

FUNCTIONS = [
    "extract_bboxes", "compute_overlaps_masks", "resize_mask", "minimize_mask", "expand_mask", "unmold_mask",
]
STACKS = hnp.arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14), st.integers(1, 4)))
NO_PADDING = [(0, 0), (0, 0), (0, 0)]


def discs(h=60, w=80, spots=((20, 20, 12), (35, 55, 18), (10, 70, 7))):
    y, x = np.mgrid[:h, :w]
    return np.stack([(y - cy) ** 2 + (x - cx) ** 2 <= r * r for cy, cx, r in spots], axis=-1)


@pytest.mark.parametrize("case", golden_files.cases("utils", *FUNCTIONS), ids=str)
def test_golden(case):
    case.check(masks)


# ------------------------------------------------------------------ boxes of masks
@given(STACKS)
def test_boxes_fit_their_masks(stack):
    boxes = masks.extract_bboxes(stack)
    assert boxes.dtype == np.int32
    for i, (y1, x1, y2, x2) in enumerate(boxes):
        part = stack[y1:y2, x1:x2, i]
        assert part.sum() == stack[..., i].sum()
        if part.size:
            assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
        else:
            assert [y1, x1, y2, x2] == [0, 0, 0, 0]


@given(STACKS, st.sampled_from(["rows", "planes", "strided", "uint8", "float"]))
def test_boxes_do_not_depend_on_how_masks_lie_in_memory(stack, layout):
    boxes = masks.extract_bboxes(stack)
    np.testing.assert_array_equal(masks.extract_bboxes({
        "rows": np.ascontiguousarray(stack),
        "planes": np.ascontiguousarray(np.moveaxis(stack, -1, 0)).transpose(1, 2, 0),
        "strided": np.repeat(np.repeat(stack, 2, axis=1), 2, axis=2)[:, ::2, ::2],
        "uint8": stack.astype(np.uint8) * 7,
        "float": stack * 0.3,
    }[layout]), boxes)  # fmt: skip


def test_no_pixels_and_no_masks_have_no_boxes():
    assert masks.extract_bboxes(np.zeros((0, 0, 0), bool)).shape == (0, 4)
    assert masks.extract_bboxes(np.zeros((0, 5, 2), bool)).tolist() == [[0] * 4] * 2
    with pytest.raises(ValueError, match=r"mask .* \(5, 5\)"):
        masks.extract_bboxes(np.zeros((5, 5)))


# ------------------------------------------------------------------ overlaps
@given(STACKS)
def test_overlaps_count_pixels(stack):
    overlaps = masks.compute_overlaps_masks(stack, stack)
    assert overlaps.dtype == np.float32
    for i, j in np.ndindex(overlaps.shape):
        a, b = stack[..., i], stack[..., j]
        assert overlaps[i, j] == pytest.approx((a & b).sum() / max((a | b).sum(), 1), rel=1e-6)


@given(STACKS, st.data())
def test_overlaps_are_those_of_all_pixels(stack, data):
    other = data.draw(hnp.arrays(np.float32, (*stack.shape[:2], 3), elements=st.sampled_from([0, 0.5, 0.75, 1])))
    flat1, flat2 = (np.reshape(s > 0.5, (-1, s.shape[2])).astype(np.float32) for s in (stack, other))
    both = flat1.T @ flat2
    want = both / np.maximum(flat1.sum(axis=0)[:, None] + flat2.sum(axis=0) - both, 1)
    got = masks.compute_overlaps_masks(stack, other)
    np.testing.assert_array_equal(got, want)
    assert got.dtype == np.float32


def test_numbers_above_a_half_are_inside():
    values = np.array([0.5, 0.51, 1.0, 0.0]).reshape(2, 2, 1)
    inside = np.array([False, True, True, False]).reshape(2, 2, 1)
    assert masks.compute_overlaps_masks(values, inside) == 1


def test_overlaps_refuse_other_sizes():
    with pytest.raises(ValueError, match=r"\(4, 5, 1\) and \(5, 4, 1\)"):
        masks.compute_overlaps_masks(np.ones((4, 5, 1), bool), np.ones((5, 4, 1), bool))


# ------------------------------------------------------------------ resizing
@given(STACKS, st.sampled_from([0.5, 0.77, 1, 1.5, 2, 2.37, 3.1]))
def test_masks_become_as_large_as_their_image(stack, scale):
    image = np.zeros((*stack.shape[:2], 3), np.uint8)
    size = images.scaled_size(*image.shape[:2], scale)
    assert masks.resize_mask(stack, scale, NO_PADDING).shape == (*size, stack.shape[2])


@given(STACKS, st.sampled_from([0.5, 0.77, 1.5, 2, 2.37, 3.1]))
def test_resizing_picks_the_pixels_of_a_spline_zoom(stack, scale):
    resized = masks.resize_mask(stack, scale, NO_PADDING)
    factors = [new / old for new, old in zip(resized.shape, stack.shape)]
    zoomed = scipy.ndimage.zoom(stack.astype(np.uint8), factors, order=0, mode="nearest")
    np.testing.assert_array_equal(resized, zoomed.astype(bool))


def test_image_and_mask_of_every_mode_agree_in_size():
    image, stack = np.zeros((61, 83, 3), np.uint8), np.ones((61, 83, 2), bool)
    for mode, sizes in {"square": (100, 128), "pad64": (64, None), "crop": (64, None), "none": (64, 128)}.items():
        resized, window, scale, padding, crop = images.resize_image(image, *sizes, 1.3, mode)
        moved = masks.resize_mask(stack, scale, padding, crop)
        assert moved.shape == (*resized.shape[:2], 2)
        assert masks.extract_bboxes(moved).tolist() == [list(window)] * 2


def test_nothing_stays_nothing():
    assert masks.resize_mask(np.zeros((0, 0, 0), bool), 2, NO_PADDING).shape == (0, 0, 0)
    with pytest.raises(ValueError, match="scale"):
        masks.resize_mask(np.ones((3, 3, 1)), 0, NO_PADDING)


# ------------------------------------------------------------------ mini masks
def test_mini_masks_come_back_nearly_whole():
    stack = discs()
    boxes = masks.extract_bboxes(stack)
    mini = masks.minimize_mask(boxes, stack, (28, 28))
    assert mini.shape == (28, 28, 3) and mini.dtype == bool
    back = masks.expand_mask(boxes, mini, (60, 80, 3))
    assert np.diag(masks.compute_overlaps_masks(stack, back)).min() > 0.94
    np.testing.assert_array_equal(masks.mold_mask(stack, (28, 28)), mini)


@given(STACKS, st.integers(1, 12), st.integers(1, 12))
def test_expanded_masks_stay_in_their_boxes(stack, h, w):
    boxes = masks.extract_bboxes(stack)
    there = stack.any(axis=(0, 1))
    mini = masks.minimize_mask(boxes[there], stack[..., there], (h, w))
    for i, (y1, x1, y2, x2) in enumerate(boxes[there]):
        outside = masks.expand_mask(boxes[there], mini, stack.shape)[..., i].copy()
        outside[y1:y2, x1:x2] = False
        assert not outside.any()


def test_full_masks_are_only_made_boolean():
    stack = discs().astype(np.uint8) * 255
    np.testing.assert_array_equal(masks.mold_mask(stack), discs())


def test_empty_instances_are_named():
    stack = np.concatenate([discs(), np.zeros((60, 80, 1), bool)], axis=-1)
    with pytest.raises(ValueError, match=r"bbox\[3\]"):
        masks.mold_mask(stack, (28, 28))
    with pytest.raises(ValueError, match="one row per mask"):
        masks.minimize_mask(np.ones((2, 4), int), stack, (28, 28))


# ------------------------------------------------------------------ pasting
def test_a_mask_fills_its_box():
    full = masks.unmold_mask(np.full((28, 28), 0.9, np.float32), [10, 20, 30, 50], (60, 80, 3))
    assert full.shape == (60, 80) and full.dtype == bool
    assert full.sum() == 20 * 30 and full[10:30, 20:50].all()


@pytest.mark.parametrize("box", [(-5, -7, 20, 30), (50, 70, 90, 99), (-9, 30, 99, 40), (70, 0, 90, 5), (5, 5, 5, 9)])
def test_what_leaves_the_image_is_cut_off(box):
    y1, x1, y2, x2 = box
    inside = np.zeros((60, 80), bool)
    inside[max(y1, 0):max(y2, 0), max(x1, 0):max(x2, 0)] = True
    np.testing.assert_array_equal(masks.unmold_mask(np.ones((28, 28)), box, (60, 80)), inside)


def test_a_cut_mask_keeps_its_place():
    half = np.zeros((28, 28), np.float32)
    half[14:] = 1
    full = masks.unmold_mask(half, (-20, 0, 20, 10), (60, 80))
    assert full[1:20, :10].all() and full.sum() <= 200


@given(shape=st.tuples(*[st.integers(1, 20)] * 2), corner=st.tuples(*[st.integers(-5, 22)] * 2),
       sides=st.tuples(*[st.integers(1, 25)] * 2), seed=st.integers(0, 2**16), share=st.floats(0, 1))
def test_runs_of_a_box_are_those_of_the_whole_mask(shape, corner, sides, seed, share):
    (y1, x1), box = corner, [*corner, corner[0] + sides[0], corner[1] + sides[1]]
    part = np.random.default_rng(seed).random(sides) <= share
    canvas = np.zeros((60, 60), bool)
    canvas[y1 + 10:y1 + 10 + sides[0], x1 + 10:x1 + 10 + sides[1]] = part
    full = canvas[10:10 + shape[0], 10:10 + shape[1]]
    runs = masks.box_runs(part, box, (*shape, 3))
    values = np.arange(len(runs)) % 2 == 1
    np.testing.assert_array_equal(np.repeat(values, runs).reshape(shape[::-1]).T, full)
    assert all(length > 0 for length in runs[1:-1])


def test_masks_as_large_as_their_boxes():
    plane, box = np.linspace(0, 1, 28 * 28).reshape(28, 28).astype(np.float32), (10, 20, 50, 80)
    full = masks.unmold_mask(plane, box, (60, 90))
    np.testing.assert_array_equal(masks.resize_to_box(plane, box), full[10:50, 20:80])


@given(hnp.arrays(bool, st.tuples(st.integers(1, 70), st.integers(1, 70))), st.integers(1, 60), st.integers(1, 60))
def test_mini_masks_are_rounded_as_ever(part, height, width):
    want = np.around(images.resize(part, (height, width))).astype(bool)
    np.testing.assert_array_equal(masks.shrink_part(part, (height, width)), want)
    full = np.ones_like(part)
    want = np.around(images.resize(full, (height, width))).astype(bool)
    np.testing.assert_array_equal(masks.shrink_part(full, (height, width)), want)


def resident():
    """Bytes of memory that the process has now."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split("VmRSS:")[1].split()[0])


@pytest.mark.parametrize("shape", [(0, 5, 5), (3, 4, 5), (5, 1000, 1000), (5, np.int32(1000), np.int32(1000))])
def test_blank_masks_are_arrays_as_any_other(shape):
    blank = masks.blank(shape)
    assert blank.shape == shape and blank.dtype == bool and not blank.any()
    blank[:, 1:3, 2] = True
    assert blank.sum() == 2 * shape[0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(blank)), blank)
    np.testing.assert_array_equal(blank.copy(), blank)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux how much memory is in use")
def test_blank_masks_take_memory_where_they_are_written():
    before = resident()
    blank = masks.blank((100, 2000, 1000))
    blank[:, 500:600, 300:400] = True
    assert resident() - before < 60e6  # of 200
    view = blank.transpose(1, 2, 0)
    del blank
    assert view.sum() == 100 * 100 * 100
    del view
    assert resident() - before < 10e6


def test_blank_masks_of_impossible_size():
    with pytest.raises(MemoryError, match="128. TiB|128 TiB"):
        masks.blank((2**20, 2**12, np.int32(2**15)))


def test_blank_masks_where_the_system_gives_no_maps(monkeypatch):
    def fail(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(masks.mmap, "mmap", fail)
    assert not masks.blank((5, 1000, 1000)).any()
