"""Images, masks and settings of all kinds: each gives a result as it should be, or a clear error."""

import contextlib
import functools
import io
import math
import tempfile

import numpy as np
import pytest
import tiny
from faults import strategies
from faults.cases import Refused, attempt, cases, listing
from hypothesis import given
from hypothesis import strategies as st

from mrcnn.config import SETTINGS, Config
from mrcnn.data.loader import load_image_gt
from mrcnn.model import MaskRCNN
from mrcnn.utils import Dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def detector():
    """A function (mode of resizing) -> a tiny model for detection, made once; it leaves no files behind."""
    with tempfile.TemporaryDirectory() as folder:
        @functools.cache
        def make(mode):
            settings = {"IMAGE_RESIZE_MODE": mode, "IMAGES_PER_GPU": 1}
            model = MaskRCNN("inference", tiny.config(**settings), folder)
            model.detect([strategies.filled((64, 64, 3), "uint8", "noise", 0)])  # the first one takes its time
            return model

        yield make
        assert listing(folder) == []


def check_result(result, shape, classes=4, most=6):
    """What `detect` promises of any image."""
    height, width = shape[:2]
    count = len(result["class_ids"])
    y1, x1, y2, x2 = result["rois"].T
    assert result["rois"].shape == (count, 4) and result["rois"].dtype == np.int32 and count <= most
    assert ((y1 >= 0) & (x1 >= 0) & (y1 < y2) & (x1 < x2) & (y2 <= height) & (x2 <= width)).all(), result["rois"]
    assert ((result["class_ids"] >= 1) & (result["class_ids"] < classes)).all()
    assert np.isfinite(result["scores"]).all() and ((result["scores"] >= 0) & (result["scores"] <= 1)).all()
    assert result["masks"].shape == (height, width, count) and result["masks"].dtype == bool
    for n in range(count):
        assert not result["masks"][:y1[n], :, n].any() and not result["masks"][:, :x1[n], n].any()
        assert not result["masks"][y2[n]:, :, n].any() and not result["masks"][:, x2[n]:, n].any()


@cases(0.14)
@given(strategies.images())
def test_images_of_all_kinds(detector, image):
    result = attempt("images", lambda: detector("square").detect([image])[0], "images[0]")
    if not isinstance(result, Refused):
        check_result(result, image.shape)
        assert image.dtype.kind in "buif" and image.shape[2:] in [(), (1,), (2,), (3,), (4,)]


@cases(0.01)
@given(strategies.images(strategies.large_sides, ("uint8", "uint8", "uint16", "bool", "float32"),
                         ("noise", "unit"), st.sampled_from((None, 3, 4))))  # fmt: skip
def test_large_images(detector, image):
    result = attempt("images, large", lambda: detector("square").detect([image])[0], "images[0]")
    if not isinstance(result, Refused):
        check_result(result, image.shape)


@cases(0.04)
@given(st.sampled_from(("pad64", "none")), st.data())
def test_images_in_other_modes_of_resizing(detector, mode, data):
    sides = st.tuples(st.integers(1, 200), st.integers(1, 200)) if mode == "none" else st.tuples(
        st.integers(20, 200), st.integers(20, 200))  # a strip is enlarged until its short side has 64 pixels
    if mode == "none":
        sides |= st.tuples(st.sampled_from((32, 64, 96, 128)), st.sampled_from((32, 64, 160)))
    image = data.draw(strategies.images(sides, ("uint8", "uint8", "float32", "bool")))
    result = attempt(f"images, {mode}", lambda: detector(mode).detect([image])[0], "images[0]")
    if not isinstance(result, Refused):
        check_result(result, image.shape)


SAME = {
    "int64": lambda image: image.astype("int64"),
    "uint16": lambda image: image.astype("uint16") * 257,
    "other byte order": lambda image: (image.astype("uint16") * 257).astype(">u2"),
    "alpha": lambda image: np.dstack([image, image[..., :1]]),
    "list": lambda image: image.tolist(),
    "fortran": np.asfortranarray,
    "view": lambda image: np.repeat(image, 2, axis=1)[:, ::2],
    "read only": lambda image: np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape),
}


@cases(0.03)
@given(st.tuples(st.integers(1, 90), st.integers(1, 90)), st.sampled_from(list(SAME)), st.integers(0, 99))
def test_the_same_image_in_another_form_gives_the_same(detector, sides, form, seed):
    image = strategies.filled((*sides, 3), "uint8", "noise", seed)
    if form == "list":
        image[0, 0] = 255, 2, 0  # or a list of 0 and 1 could be anything
    model = detector("square")
    plain, other = model.detect([image])[0], attempt("images, equal", lambda: model.detect([SAME[form](image)])[0])
    for key, value in plain.items():
        np.testing.assert_array_equal(other[key], value)


class One(Dataset):
    """A single image with its masks, as they were drawn."""

    def __init__(self, image, masks, class_ids):
        super().__init__()
        for number in (1, 2, 3):
            self.add_class("drawn", number, f"class {number}")
        self.add_image("drawn", "the one", "the/path.png")
        self.content = image, masks, class_ids
        self.prepare()

    def load_image(self, image_id):
        return self.content[0]

    def load_mask(self, image_id):
        return self.content[1:]


@cases(0.12)
@given(strategies.ground_truths(), st.booleans(), st.sampled_from(("square", "pad64", "crop")))
def test_masks_of_all_kinds(truth, mini, mode):
    image, masks, class_ids = truth
    settings = tiny.config(IMAGE_RESIZE_MODE=mode)
    result = attempt("masks", lambda: load_image_gt(One(*truth), settings, 0, use_mini_mask=mini), "the one")
    if isinstance(result, Refused):
        return
    molded, _, found_ids, boxes, found = result
    height, width = molded.shape[:2]
    assert molded.shape[2] == 3 and height % 64 == width % 64 == 0 and molded.dtype == np.uint8
    assert found.dtype == bool and boxes.dtype == found_ids.dtype == np.int32
    assert found.shape == (*(settings.MINI_MASK_SHAPE if mini else (height, width)), len(boxes))
    y1, x1, y2, x2 = boxes.T
    assert len(boxes) == len(found_ids) <= np.size(class_ids)
    assert ((y1 >= 0) & (y1 < y2) & (y2 <= height) & (x1 >= 0) & (x1 < x2) & (x2 <= width)).all()
    assert set(found_ids.tolist()) <= {int(number) for number in np.ravel(class_ids)}
    if not mini:
        assert found.any(axis=(0, 1)).all()
    if mode != "crop" and masks.size and image.shape[0] <= 64 >= image.shape[1]:  # enlarging loses none
        assert len(boxes) == masks.astype(bool).any(axis=(0, 1)).sum()


COMPUTED = ("BATCH_SIZE", "IMAGE_SHAPE", "IMAGE_META_SIZE")


@cases(0.1)
@given(strategies.settings_of((*SETTINGS, *COMPUTED)))
def test_settings_of_all_kinds(drawn):
    def make():
        made = tiny.config(**drawn)
        made.check_model()
        return made

    # What contradicts a drawn setting may be named instead of it; each message begins with the setting.
    names = [f"Tiny.{name} = " for name in (*SETTINGS, *COMPUTED)]
    result = attempt("settings", make, *names)
    if isinstance(result, Refused):
        return
    assert set(result.to_dict()) >= set(SETTINGS)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        result.display()
    assert all(name in printed.getvalue() for name in drawn)
    assert all(np.isfinite(size) and size >= 0 for size in result.estimate_memory())
    for name in set(drawn) - {"BACKBONE", "COMPUTE_BACKBONE_SHAPE", "LOSS_WEIGHTS"}:
        values = np.ravel(np.asarray(getattr(result, name), object))
        assert all(value is None or isinstance(value, str | bool) or math.isfinite(value) for value in values), name


# Settings whose values a model of any size can have, small enough to build hundreds of them.
SMALL = {
    "NUM_CLASSES": (1, 2, 5), "IMAGE_MIN_DIM": (0, 64, 128, 100), "IMAGE_MAX_DIM": (64, 128, 100),
    "IMAGE_CHANNEL_COUNT": (1, 3, 4), "MEAN_PIXEL": ([1.0], [1, 2, 3], (1, 2, 3, 4), np.array([1.0, 2, 3])),
    "IMAGE_RESIZE_MODE": ("square", "pad64", "crop", "none"), "IMAGE_MIN_SCALE": (0, 2.0), "IMAGES_PER_GPU": (1, 3),
    "TOP_DOWN_PYRAMID_SIZE": (1, 8), "RPN_ANCHOR_RATIOS": ([1], [0.5, 1, 2, 4]), "RPN_ANCHOR_STRIDE": (1, 2, 3),
    "PRE_NMS_LIMIT": (1, 40, 10**6), "POST_NMS_ROIS_INFERENCE": (1, 7, 3000), "POOL_SIZE": (1, 3),
    "MASK_POOL_SIZE": (1, 7, 14), "MASK_SHAPE": ([28, 28], [14, 14], [56, 56], (2, 2)), "RPN_NMS_THRESHOLD": (0, 1),
    "DETECTION_MAX_INSTANCES": (1, 300), "DETECTION_MIN_CONFIDENCE": (0, 1, None), "DETECTION_NMS_THRESHOLD": (0, 1.0),
    "RPN_ANCHOR_SCALES": ((1, 2, 3, 4, 5), (8, 16, 32, 64, 1000)), "BBOX_STD_DEV": ([1, 1, 1, 1], np.ones(4)),
    "FPN_CLASSIF_FC_LAYERS_SIZE": (1,), "RPN_CHANNELS": (1,), "MASK_CHANNELS": (1,), "PRECISION": ("bfloat16",),
}  # fmt: skip


@cases(0.006)
@given(st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in SMALL.items()}))
def test_settings_that_are_accepted_make_a_model_that_detects(drawn):
    import keras

    shape = drawn.get("IMAGE_CHANNEL_COUNT", 3)
    image = strategies.filled((64, 96, shape), "uint8", "noise", 0)

    def build_and_detect():
        with tempfile.TemporaryDirectory() as folder:
            model = MaskRCNN("inference", tiny.config(**drawn), folder)
            return model.config, model.detect([image])[0]

    result = attempt("settings, built", build_and_detect, *(f"Tiny.{name} = " for name in SETTINGS), "images[0]")
    if not isinstance(result, Refused) and result[0].IMAGE_RESIZE_MODE != "crop":
        check_result(result[1], image.shape, result[0].NUM_CLASSES, result[0].DETECTION_MAX_INSTANCES)
    keras.utils.clear_session()


def test_no_setting_is_left_out():
    assert set(SMALL) <= set(SETTINGS) == {name for name in vars(Config) if name.isupper()}
