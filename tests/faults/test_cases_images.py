"""Images, masks and settings of all kinds: each gives a result as it should be, or a clear error."""

import contextlib
import functools
import io
import math
import random
import tempfile
import warnings

import numpy as np
import pytest
import tiny
import weight_files
from faults import references, strategies
from faults.cases import Refused, attempt, cases, listing, looked_at
from hypothesis import given
from hypothesis import strategies as st

from mrcnn.config import SETTINGS, Config
from mrcnn.data.loader import load_image_gt
from mrcnn.model import MaskRCNN, parse_image_meta
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
            find_something(model.keras_model)
            model.detect([strategies.filled((64, 64, 3), "uint8", "noise", 0)])  # the first one takes its time
            return model

        yield make
        assert listing(folder) == []


def find_something(network):
    """Gives the last layers of two heads other weights: fresh ones call all background, and leave most masks empty."""
    logits, mask = network.get_layer("mrcnn_class_logits"), network.get_layer("mrcnn_mask")
    logits.set_weights([weight_files.seeded(logits.name, array.shape) for array in logits.get_weights()])
    kernel, bias = mask.get_weights()
    mask.set_weights([kernel - kernel.mean(axis=-2, keepdims=True), bias])


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
    looked_at["detections"] += count
    looked_at["masks"] += np.count_nonzero(result["masks"].any(axis=(0, 1)))
    for n in range(count):
        assert not result["masks"][:y1[n], :, n].any() and not result["masks"][:, :x1[n], n].any()
        assert not result["masks"][y2[n]:, :, n].any() and not result["masks"][:, x2[n]:, n].any()


@cases(0.14, detections=1, masks=0.2)
@given(strategies.images())
def test_images_of_all_kinds(detector, image):
    result = attempt("images", lambda: detector("square").detect([image])[0], "images[0]")
    if not isinstance(result, Refused):
        check_result(result, image.shape)
        assert image.dtype.kind in "buif" and image.shape[2:] in [(), (1,), (2,), (3,), (4,)]


@cases(0.01, detections=3, masks=1)
@given(strategies.images(strategies.large_sides, ("uint8", "uint8", "uint16", "bool", "float32"),
                         ("noise", "unit"), st.sampled_from((None, 3, 4))))  # fmt: skip
def test_large_images(detector, image):
    result = attempt("images, large", lambda: detector("square").detect([image])[0], "images[0]")
    if not isinstance(result, Refused):
        check_result(result, image.shape)


@cases(0.04, detections=1, masks=0.2)
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


@cases(0.03, detections=3, masks=0.5)
@given(st.tuples(st.integers(1, 90), st.integers(1, 90)), st.sampled_from(list(SAME)), st.integers(0, 99))
def test_the_same_image_in_another_form_gives_the_same(detector, sides, form, seed):
    image = strategies.filled((*sides, 3), "uint8", "noise", seed)
    if form == "list":
        image[0, 0] = 255, 2, 0  # or a list of 0 and 1 could be anything
    model = detector("square")
    plain, other = model.detect([image])[0], attempt("images, equal", lambda: model.detect([SAME[form](image)])[0])
    for key, value in plain.items():
        np.testing.assert_array_equal(other[key], value)
    check_result(plain, image.shape)


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


def is_plain(image, masks, class_ids):
    """Whether a data set's masks and ids are as anyone would write them, so that nothing about them may be refused."""
    return (isinstance(class_ids, np.ndarray) and class_ids.dtype.kind in "iu" and masks.dtype == bool
            and masks.shape == (*image.shape[:2], len(class_ids)) and set(class_ids.tolist()) <= {1, 2, 3})  # fmt: skip


@cases(0.12, masks=0.2, pixels=0.05)
@given(strategies.ground_truths(), st.booleans(), st.sampled_from(("square", "pad64", "crop")), st.integers(0, 99))
def test_masks_of_all_kinds(truth, mini, mode, seed):
    settings = tiny.config(IMAGE_RESIZE_MODE=mode)

    def load(use_mini_mask):
        return load_image_gt(One(*truth), settings, 0, use_mini_mask=use_mini_mask, rng=random.Random(seed))

    result = attempt("masks", lambda: load(mini), "the one")
    if isinstance(result, Refused):
        assert not is_plain(*truth), result.error
        return
    molded, meta, found_ids, boxes, found = result
    height, width = molded.shape[:2]
    assert molded.shape[2] == 3 and height % 64 == width % 64 == 0 and molded.dtype == np.uint8
    assert found.dtype == bool and boxes.dtype == found_ids.dtype == np.int32
    assert found.shape == (*(settings.MINI_MASK_SHAPE if mini else (height, width)), len(boxes))
    if mini:  # whole masks have the same boxes, and are looked at
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            whole = load(False)
        assert np.array_equal(whole[1], meta) and np.array_equal(whole[2], found_ids)
        found = whole[4]
    assert found.any(axis=(0, 1)).all() and np.array_equal(boxes, references.boxes_of(found))
    check_objects(truth, mode, parse_image_meta(meta[np.newaxis]), found_ids, found)


def check_objects(truth, mode, meta, found_ids, found):
    """Compares ids, and masks where they are neither cropped nor scaled, with those that the data set returned."""
    image, masks, class_ids = truth
    masks = np.asarray(masks).astype(bool)
    drawn = [(class_id, n) for n, class_id in enumerate(np.ravel(class_ids).tolist()) if masks[..., n].any()]
    ids = [class_id for class_id, _ in drawn]  # as they were: 1.5 is no class, and does not equal any
    looked_at["masks"] += len(found_ids)
    if mode == "crop" or max(image.shape[:2]) > 64:  # what is cut off, or less than a pixel in the end, is left out
        left = iter(ids)
        assert all(class_id in left for class_id in found_ids.tolist()), "other ids, or another order"
    else:
        assert found_ids.tolist() == ids
    if mode != "crop" and meta["scale"][0] == 1:
        y1, x1, y2, x2 = meta["window"][0].astype(int)
        assert (y2 - y1, x2 - x1) == image.shape[:2] and found_ids.tolist() == ids
        placed = np.zeros((*found.shape[:2], len(ids)), bool)
        placed[y1:y2, x1:x2] = masks[..., [n for _, n in drawn]] if ids else False
        assert np.array_equal(found, placed)
        looked_at["pixels"] += len(ids)


COMPUTED = ("BATCH_SIZE", "IMAGE_SHAPE", "IMAGE_META_SIZE")
# What a drawn setting may contradict, so that the other one is named.
CONTRADICTS = {
    "BACKBONE": ("BACKBONE_STRIDES",), "GRADIENT_ACCUMULATION": (), "IMAGE_CHANNEL_COUNT": ("MEAN_PIXEL",),
    "IMAGE_RESIZE_MODE": ("IMAGE_MIN_DIM", "IMAGE_MAX_DIM"), "MASK_POOL_SIZE": ("MASK_SHAPE",),
    "STEPS_PER_EPOCH": ("GRADIENT_ACCUMULATION",), "TRAIN_ROIS_PER_IMAGE": ("ROI_POSITIVE_RATIO",),
}  # fmt: skip
# A user's own functions: these are none that make a backbone.
FUNCTIONS = ("BACKBONE", "COMPUTE_BACKBONE_SHAPE")


def beginnings(drawn):
    """How a message about drawn settings may begin."""
    names = {*drawn, *(other for name in drawn for other in CONTRADICTS.get(name, ()))}
    return [f"Tiny.{name} = " for name in sorted(names)]


def is_small(settings):
    """Whether a model of these settings, and what goes through it, are made in a second or two."""
    numbers = [number for name in SETTINGS for number in np.ravel(np.asarray(getattr(settings, name), object))
               if isinstance(number, int | float | np.number) and name not in LARGE]  # fmt: skip
    return max(numbers) <= 1000 and max(settings.IMAGE_SHAPE) <= 128 and callable(settings.BACKBONE)


# Settings of which a large number makes no large model.
LARGE = ("SEED", "STEPS_PER_EPOCH", "VALIDATION_STEPS", "DATA_CACHE", "DATA_TIMEOUT", "PRE_NMS_LIMIT", "LEARNING_RATE",
         "GRADIENT_CLIP_NORM", "WEIGHT_DECAY", "LEARNING_MOMENTUM", "LOSS_WEIGHTS")  # fmt: skip


def build_and_detect(settings, image):
    """What a new model with these settings finds in an image."""
    import keras

    try:
        with tempfile.TemporaryDirectory() as folder:
            model = MaskRCNN("inference", settings, folder)
            find_something(model.keras_model)
            return model.detect([image] * settings.BATCH_SIZE)[0]
    finally:
        keras.utils.clear_session()


@cases(0.1, models=0.02)
@given(strategies.settings_of((*SETTINGS, *COMPUTED)))
def test_settings_of_all_kinds(drawn):
    def make():
        made = tiny.config(**drawn)
        made.check_model()
        if not is_small(made) or set(drawn) & set(FUNCTIONS):
            return made, None
        image = strategies.filled((64, 64, made.IMAGE_CHANNEL_COUNT), "uint8", "noise", 0)
        return made, build_and_detect(made, image)

    made = attempt("settings", make, *beginnings(drawn), begins=True)
    if isinstance(made, Refused):
        return
    result, found = made
    if found is not None:
        check_result(found, (64, 64), result.NUM_CLASSES, result.DETECTION_MAX_INSTANCES)
        looked_at["models"] += 1
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


@cases(0.006, models=0.2, detections=0.3)
@given(st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in SMALL.items()}))
def test_settings_that_are_accepted_make_a_model_that_detects(drawn):
    image = strategies.filled((64, 96, drawn.get("IMAGE_CHANNEL_COUNT", 3)), "uint8", "noise", 0)
    found = attempt("settings, built", lambda: build_and_detect(tiny.config(**drawn), image), *beginnings(drawn),
                    "images[0]", begins=True)  # fmt: skip
    if not isinstance(found, Refused):
        settings = tiny.config(**drawn)
        check_result(found, image.shape, settings.NUM_CLASSES, settings.DETECTION_MAX_INSTANCES)
        looked_at["models"] += 1


def test_no_setting_is_left_out():
    assert set(SMALL) <= set(SETTINGS) == {name for name in vars(Config) if name.isupper()}
