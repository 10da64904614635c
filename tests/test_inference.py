"""Molding, batching and unmolding, without a network."""

import random

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.engine.inference import (
    Molding,
    class_planes,
    detect,
    detect_molded,
    in_batches,
    mold_inputs,
    unmold_detections,
)

MEAN = np.array([123.7, 116.8, 103.9])


def molding(mode="square"):
    return Molding(3, 64, 64, 0, mode, MEAN, 4, 32)


class Network:
    """Finds one object in each image: its class tells the image's brightness, its box is the window."""

    def __init__(self, batch_size=2):
        self.batch_size = batch_size
        self.batches = []

    def __call__(self, images, metas):
        return in_batches(images, metas, self.batch_size, self.run)

    def run(self, images, metas):
        assert images.dtype == metas.dtype == np.float32
        self.batches.append(images.shape)
        detections = np.zeros((len(images), 3, 6), "float32")
        height, width = images.shape[1:3]
        for row, (image, meta) in enumerate(zip(images, metas, strict=True)):
            y1, x1, y2, x2 = meta[7:11]
            box = (y1 / (height - 1), x1 / (width - 1), (y2 - 1) / (height - 1), (x2 - 1) / (width - 1))
            brightness = np.round((image + MEAN).max())
            detections[row, 0] = (*box, brightness, 0.5)
        return detections, np.ones((len(images), 3, 4, 4), "float32")


@given(sides=st.lists(st.tuples(st.integers(8, 90), st.integers(8, 90)), max_size=7),
       mode=st.sampled_from(["square", "pad64"]), batch=st.integers(1, 3))
@settings(deadline=None, max_examples=25)
def test_any_number_of_any_size_keeps_its_order(sides, mode, batch):
    images = [np.full((*side, 3), n + 1, "uint8") for n, side in enumerate(sides)]
    network = Network(batch)
    results = detect(images, molding(mode), batch, network)
    assert [r["class_ids"].tolist() for r in results] == [[n + 1] for n in range(len(images))]
    for side, result in zip(sides, results, strict=True):
        np.testing.assert_array_equal(result["rois"], [[0, 0, *side]])
        assert result["masks"].shape == (*side, 1) and result["masks"].all()
    assert all(shape[0] == batch for shape in network.batches)


def test_a_batch_runs_as_soon_as_it_is_full():
    network, sides = Network(), ((64, 64), (64, 100), (60, 60), (100, 100))
    detect([tiny.photo(*side) for side in sides], molding("pad64"), 2, network)
    assert network.batches == [(2, 64, 64, 3), (2, 64, 128, 3), (2, 128, 128, 3)]


def test_result_types():
    result = detect([tiny.photo(40, 50)], molding(), 2, Network())[0]
    assert {k: v.dtype for k, v in result.items()} == {
        "rois": np.int32, "class_ids": np.int32, "scores": np.float32, "masks": bool}


def test_nothing_in_nothing_out():
    assert detect([], molding(), 2, None) == []
    assert detect_molded([], [], None) == []


@pytest.mark.parametrize("images, message", [
    ("dog.png", "received the path 'dog.png'.*skimage.io.imread"),
    (["dog.png"], r"images\[0\]: expected an array.*'dog.png'"),
    (tiny.photo(8, 8), r"one array of shape \(8, 8, 3\). Pass \[image\]"),
    (3, "received int"),
    ([None], r"images\[0\]"),
    ([[[1, 2], [3]]], r"images\[0\]: an image must be an array"),
    ([tiny.photo(8, 8), np.full((8, 8, 3), 300.0)], r"images\[1\].*0\.\.255"),
    ([np.zeros((8, 8, 7))], r"images\[0\].*7 channels")])
def test_what_is_no_list_of_images_says_so(images, message):
    with pytest.raises(ValueError, match=message):
        detect(images, molding(), 2, None)


@pytest.mark.parametrize("image", [
    tiny.photo(32, 64)[..., 0], tiny.photo(32, 64)[..., :1],
    np.dstack([tiny.photo(32, 64), np.zeros((32, 64), "uint8")]),
    tiny.photo(32, 64).astype("uint16") * 257, tiny.photo(32, 64) / 255.0])
def test_grey_alpha_deep_and_float_images_are_understood(image):
    plain = tiny.photo(32, 64)
    if image.ndim == 2 or image.shape[2] == 1:
        plain = np.repeat(plain[..., :1], 3, axis=2)
    np.testing.assert_allclose(mold_inputs([image], molding())[0], mold_inputs([plain], molding())[0], atol=1e-3)


def test_mold_inputs_gives_images_metas_and_windows():
    images, metas, windows = mold_inputs([tiny.photo(32, 48), tiny.photo(48, 32)], molding())
    assert images.shape == (2, 64, 64, 3) and images.dtype == np.float64
    np.testing.assert_allclose(images[0, 0, 0], -MEAN, rtol=1e-6)  # padding is 0 before the mean goes
    np.testing.assert_array_equal(windows, [[10, 0, 53, 64], [0, 10, 64, 53]])
    np.testing.assert_allclose(metas[0], [0, 32, 48, 3, 64, 64, 3, 10, 0, 53, 64, 64 / 48, 0, 0, 0, 0])


def test_mold_inputs_wants_one_size():
    with pytest.raises(ValueError, match=r"different sizes.*detect\(\)"):
        mold_inputs([tiny.photo(60, 60), tiny.photo(60, 100)], molding("pad64"))
    with pytest.raises(ValueError, match="empty"):
        mold_inputs([], molding())


def test_unresized_images_must_fit_the_pyramid():
    assert molding("none").mold(tiny.photo(64, 96)).image.shape == (64, 96, 3)
    with pytest.raises(ValueError, match=r"images\[0\].*multiples of 32.*60 x 96"):
        mold_inputs([tiny.photo(60, 96)], molding("none"))


def test_crops_are_drawn_in_the_order_of_the_images():
    crop = molding("crop")
    images = [tiny.photo(100, 100, seed) for seed in range(3)]
    random.seed(5)
    together = [crop.mold(image).image for image in images]
    random.seed(5)
    seen = []

    def predict(batch, metas):
        seen.extend(batch)
        return [(np.zeros((1, 6)), np.zeros((1, 4, 4)))] * len(batch)

    detect(images, crop, 2, predict)
    np.testing.assert_array_equal(together, seen)


def test_detect_molded_answers_in_molded_pixels():
    images, metas, _ = mold_inputs([np.full((32, 64, 3), 9, "uint8")] * 3, molding())
    results = detect_molded(images, metas, Network())
    assert len(results) == 3
    np.testing.assert_array_equal(results[2]["rois"], [[16, 0, 48, 64]])
    assert results[2]["masks"].shape == (64, 64, 1)
    with pytest.raises(ValueError, match="2 images.*3 metas"):
        detect_molded(images[:2], metas, Network())


@pytest.mark.parametrize("masks", [None, np.array([1]), ["full"], b"full"])
def test_masks_are_named_by_a_text(masks):
    with pytest.raises(ValueError, match=r"masks must be one of \('full', 'box', 'rle'\); received"):
        detect([tiny.photo(8, 8)], molding(), 2, None, masks=masks)


MOLDED, METAS, _ = mold_inputs([tiny.photo(32, 48), tiny.photo(48, 32)], molding())


@pytest.mark.parametrize("images, metas, message", [
    (None, METAS, "molded_images must be an array or a list.*received None"),
    (MOLDED, None, "image_metas must be an array or a list.*received None"),
    (MOLDED[:, :60], METAS, r"molded_images\[0\]: .* multiples of 32 pixels; received \(60, 64, 3\)"),
    (MOLDED[..., :1], METAS, r"molded_images\[0\]: the network takes \[height, width, 3\].*received \(64, 64, 1\)"),
    ([MOLDED[0], None], METAS, r"molded_images\[1\].*received \(\)"),
    (np.zeros((2, 0, 64, 3)), METAS, r"molded_images\[0\].*received \(0, 64, 3\)"),
    (np.where([[[[True]]], [[[False]]]], MOLDED, np.nan), METAS,
     r"molded_images\[1\] must hold finite numbers; received nan at \[0, 0, 0\]\. Use"),
    (np.where(np.arange(MOLDED.size).reshape(MOLDED.shape) < 64 * 3 * 7 + 3 * 5 + 2, MOLDED, -np.inf), METAS,
     r"molded_images\[0\] must hold finite numbers; received -inf at \[7, 5, 2\]\. Use"),
    (MOLDED, METAS[:, :15], r"image_metas\[0\]: with NUM_CLASSES = 4 a meta has 16 numbers; received \(15,\)"),
    (MOLDED, [METAS[0], None], r"image_metas\[1\]: .*received \(\)"),
    (MOLDED, np.full_like(METAS, np.inf), r"image_metas\[0\] must hold finite numbers; received inf at \[0\]\. Use"),
    (MOLDED.astype(object), METAS, r"molded_images\[0\] must hold numbers; received object\. Use"),
    (MOLDED.astype(complex), METAS, r"molded_images\[0\] must hold numbers; received complex128\. Use"),
    (np.array(3.0), METAS, r"molded_images must be an array or a list.*received array\(3\.\)"),
    (MOLDED, np.array(None), r"image_metas must be an array or a list.*received array\(None"),
])  # fmt: skip
def test_what_was_not_molded_for_this_network_says_so(images, metas, message):
    with pytest.raises(ValueError, match=message):
        detect_molded(images, metas, Network(), molding=molding())
    assert len(detect_molded(MOLDED, list(METAS), Network(), molding=molding())) == 2


def test_prints_what_goes_in(capsys):
    detect([tiny.photo(40, 50)], molding(), 2, Network(), verbose=1)
    printed = capsys.readouterr().out
    assert printed.startswith("Processing 1 images\nimage ")


@given(count=st.integers(1, 9), size=st.integers(1, 4))
def test_batches_are_filled_up_and_cut(count, size):
    lengths = []

    def run(images, metas):
        lengths.append(len(images))
        return images[:, 0] * 2, metas[:, 0]

    made = in_batches(list(np.arange(count).reshape(-1, 1)), list(np.ones((count, 1))), size, run)
    doubled, metas = zip(*made, strict=True)
    np.testing.assert_array_equal(doubled, np.arange(count) * 2)
    assert len(metas) == count and set(lengths) == {size}


class TestUnmoldDetections:
    masks = np.zeros((4, 2, 2, 3), "float32")

    def unmold(self, rows, masks=None, original=(50, 100, 3), window=(16, 0, 48, 64)):
        detections = np.zeros((4, 6), "float32")
        detections[: len(rows)] = np.reshape(rows, (-1, 6))
        planes = class_planes(detections, self.masks if masks is None else masks)
        return unmold_detections(detections, planes, original, (64, 64, 3), window)

    def test_boxes_are_relative_to_the_window(self):
        rows = [[16 / 63, 0, 47 / 63, 1, 1, 0.9], [16 / 63, 0, 31 / 63, 32 / 63, 2, 0.8]]
        boxes, class_ids, scores, _ = self.unmold(rows)
        np.testing.assert_array_equal(boxes, [[0, 0, 50, 100], [0, 0, 25, 51]])
        np.testing.assert_array_equal(class_ids, [1, 2])
        np.testing.assert_array_equal(scores, np.float32([0.9, 0.8]))

    @pytest.mark.parametrize("height", [1, 5])
    def test_strips_that_are_one_pixel_high_after_resizing(self, height):
        rows = [[31 / 63, 0, 31 / 63, 1, 1, 0.9], [31 / 63, 0.5, 31 / 63, 1, 2, 0.8]]
        boxes, class_ids, _, masks = self.unmold(rows, original=(height, 640, 3), window=(31, 0, 32, 64))
        np.testing.assert_array_equal(boxes, [[0, 0, height, 640], [0, 320, height, 640]])
        assert class_ids.tolist() == [1, 2] and masks.shape == (height, 640, 2)

    def test_boxes_without_area_go(self):
        rows = [[0.5, 0.5, 0.4, 0.6, 1, 0.9], [0.3, 0.2, 0.7, 0.6, 2, 0.8]]
        boxes, class_ids, _, masks = self.unmold(rows)
        assert boxes.shape == (1, 4) and class_ids.tolist() == [2] and masks.shape == (50, 100, 1)

    def test_the_list_ends_at_the_first_background(self):
        rows = [[0.3, 0.2, 0.7, 0.6, 2, 0.8], [0.3, 0.2, 0.7, 0.6, 0, 0], [0.3, 0.2, 0.7, 0.6, 1, 0.5]]
        assert len(self.unmold(rows)[0]) == 1
        assert len(self.unmold([[0.3, 0.2, 0.7, 0.6, 2, 0.8]] * 4)[0]) == 4

    def test_masks_are_those_of_the_class(self):
        masks = self.masks.copy()
        masks[0, :, :1, 2] = 1  # left half
        rows = [[16 / 63, 0, 47 / 63, 1, 2, 0.9]]
        mask = self.unmold(rows, masks)[3]
        assert mask[15:35, 15:45].all() and not mask[:, 60:].any()

    def test_without_detections(self):
        boxes, class_ids, scores, masks = self.unmold([])
        assert (boxes.shape, class_ids.shape, scores.shape, masks.shape) == ((0, 4), (0,), (0,), (50, 100, 0))
        assert (boxes.dtype, class_ids.dtype, scores.dtype, masks.dtype) == (np.int32, np.int32, np.float32, bool)


@given(st.integers(1, 3), st.integers(1, 400), st.sampled_from(["square", "pad64"]), st.booleans())
@settings(deadline=None, max_examples=40)
def test_photos_of_a_few_pixels_keep_their_detections(short, long, mode, turned):
    """Such a one may be a single line of pixels in the network's image, which has no height in its coordinates."""
    sides = (long, short) if turned else (short, long)
    (result,) = detect([np.full((*sides, 3), 1, "uint8")], molding(mode), 1, Network(1))
    np.testing.assert_array_equal(result["rois"], [[0, 0, *sides]])
    assert result["masks"].shape == (*sides, 1) and result["masks"].all()
