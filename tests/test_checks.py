"""What is found wrong with a data set, and how it is said."""

import logging

import numpy as np
import pytest

from mrcnn.data.checks import ClassMismatch, Record, check_classes, check_ready, clean_masks, image_name
from mrcnn.data.dataset import Dataset

MASKS = np.zeros((6, 8, 2), bool)
MASKS[1:3, 1:4, 0] = MASKS[2:5, 2:6, 1] = True


def clean(masks, class_ids, num_classes=3):
    return clean_masks(masks, class_ids, (6, 8, 3), num_classes, "image 'cat' of source 'a' (cat.png)")


# ------------------------------------------------------------------ data sets
def test_image_name():
    dataset = Dataset()
    dataset.add_image("a", image_id="cat", path="/x/cat.png")
    assert image_name(dataset, 0) == "image 'cat' of source 'a' (/x/cat.png)"


def test_ready():
    dataset = Dataset()
    with pytest.raises(ValueError, match=r"the training data set has no images: call add_image\(\).* then prepare"):
        check_ready(dataset, "the training data set")
    dataset.add_image("a", 1, None)
    with pytest.raises(ValueError, match=r"not prepared: call prepare\(\)"):
        check_ready(dataset)
    dataset.prepare()
    check_ready(dataset)
    dataset.add_image("a", 2, None)
    with pytest.raises(ValueError, match="2 added, 1 prepared"):
        check_ready(dataset)


def test_classes():
    dataset = Dataset()
    dataset.add_class("a", 1, "cat")
    dataset.add_class("a", 2, "dog")
    dataset.prepare()
    check_classes(dataset, 3)
    with pytest.raises(ClassMismatch, match=r"NUM_CLASSES is 81, but .* 3 classes .*: BG, cat, dog. Set .* = 1 \+ 2"):
        check_classes(dataset, 81)


# ------------------------------------------------------------------ masks
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_masks_of_many_dtypes(dtype):
    masks, class_ids = clean(MASKS.astype(dtype), [1, -2])
    assert masks.dtype == bool and np.array_equal(masks, MASKS)
    assert class_ids.dtype == np.int32 and class_ids.tolist() == [1, -2]


def test_masks_of_255():
    assert np.array_equal(clean(MASKS * np.uint8(255), np.array([1.0, 2.0]))[0], MASKS)


@pytest.mark.parametrize("shape", [(0, 0, 0), (6, 8, 0), (0,)])
def test_no_objects(shape):
    """The default `load_mask` of old gave masks of shape (0, 0, 0)."""
    masks, class_ids = clean(np.empty(shape), [])
    assert masks.shape == (6, 8, 0) and masks.dtype == bool
    assert class_ids.shape == (0,) and class_ids.dtype == np.int32


@pytest.mark.parametrize(
    ("masks", "class_ids", "message"),
    [
        (MASKS[:5], [1, 2], r"\(6, 8, N\); received \(5, 8, 2\)"),
        (MASKS.transpose(1, 0, 2), [1, 2], r"received \(8, 6, 2\)"),
        (MASKS[..., 0], [1], r"received \(6, 8\)"),
        (MASKS * 0.5, [1, 2], "bool masks, or numbers 0 and 1; received dtype float64"),
        (MASKS.astype(str), [1, 2], "received dtype <U5"),
        (MASKS, [1], r"received 2 masks and class ids of shape \(1,\)"),
        (MASKS, [[1], [2]], r"class ids of shape \(2, 1\)"),
        (MASKS[..., :0], [1], "received 0 masks"),
        (MASKS, ["cat", "dog"], "whole numbers"),
        (MASKS, [1.0, 1.5], "whole numbers"),
        (MASKS, [np.nan, 1], "whole numbers"),
    ],
)
def test_masks_that_do_not_fit(masks, class_ids, message):
    with pytest.raises(ValueError, match=message) as caught:
        clean(masks, class_ids)
    assert "image 'cat' of source 'a' (cat.png): " in str(caught.value)
    assert not isinstance(caught.value, ClassMismatch)


@pytest.mark.parametrize("wrong", [0, 3])
def test_class_ids_out_of_range(wrong):
    with pytest.raises(ClassMismatch, match=f"cat.png.*class id {wrong}; ids go from 1 to 2"):
        clean(MASKS, [1, wrong])


# ------------------------------------------------------------------ the record
def fail(record, image_id):
    record.seen(image_id)
    record.failed(image_id, f"{image_id}.png", OSError("broken"))


def test_a_few_bad_images_are_reported(caplog):
    record = Record(100)
    with caplog.at_level(logging.WARNING):
        for image_id in (*range(5), 4, 4):
            fail(record, image_id)
    assert record.problems == [(f"{i}.png", "OSError: broken") for i in range(5)]
    assert len(caplog.messages) == 5 and "5 of 5 images so far: 4.png: OSError: broken" in caplog.messages[-1]


@pytest.mark.parametrize(("total", "allowed"), [(1, 1), (10, 1), (40, 2), (120, 6)])
def test_more_than_one_and_five_percent_are_too_many(total, allowed):
    record = Record(total)
    for image_id in range(allowed):
        fail(record, image_id)
    with pytest.raises(ValueError, match=f"{allowed + 1} of {total} images could not.*\n  0.png: OSError: broken\n"):
        fail(record, allowed)


def test_summary_is_short():
    record = Record(30)
    record.problems = [(f"{i}.png", "broken") for i in range(30)]
    assert record.summary().count("\n") == 20 and record.summary().endswith("and 10 more")


def test_tiny_objects_are_counted():
    record = Record(100)
    with pytest.warns(UserWarning) as caught:
        for image_id in range(100):
            record.lost(image_id, 2)
            record.lost(0, 2)  # the next epoch meets the same images
    assert [str(w.message).split(" so far")[0] for w in caught] == [
        "2 objects in 1 images", "20 objects in 10 images", "200 objects in 100 images",
    ]
