"""The nucleus sample: settings, files to masks, augmentation, run-length encoding, and the competition's score."""

import random
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from nucleus_files import FOLDER, load_script, squares, write_dataset, write_image

from mrcnn.data.augment import augment, warn_of_unmoved_masks

nucleus = load_script("nucleus")

MASKS = arrays(bool, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data set of four training images, the third of which is kept for validation, and of two test images."""
    monkeypatch.setattr(nucleus, "VAL_IMAGE_IDS", ["c"])
    return write_dataset(tmp_path / "data")


# ---- settings


def test_settings_are_the_originals():
    training, detection = nucleus.NucleusConfig(), nucleus.NucleusInferenceConfig()
    expected = dict(
        NAME="nucleus", IMAGES_PER_GPU=6, NUM_CLASSES=2, STEPS_PER_EPOCH=105, VALIDATION_STEPS=4, BACKBONE="resnet50",
        DETECTION_MIN_CONFIDENCE=0, IMAGE_RESIZE_MODE="crop", IMAGE_MIN_DIM=512, IMAGE_MAX_DIM=512, IMAGE_MIN_SCALE=2.0,
        RPN_ANCHOR_SCALES=(8, 16, 32, 64, 128), POST_NMS_ROIS_TRAINING=1000, POST_NMS_ROIS_INFERENCE=2000,
        RPN_NMS_THRESHOLD=0.9, RPN_TRAIN_ANCHORS_PER_IMAGE=64, USE_MINI_MASK=True, MINI_MASK_SHAPE=(56, 56),
        TRAIN_ROIS_PER_IMAGE=128, MAX_GT_INSTANCES=200, DETECTION_MAX_INSTANCES=400,
    )  # fmt: skip
    changed = dict(GPU_COUNT=1, IMAGES_PER_GPU=1, IMAGE_RESIZE_MODE="pad64", RPN_NMS_THRESHOLD=0.7)
    assert {name: getattr(training, name) for name in expected} == expected
    assert {name: getattr(detection, name) for name in expected | changed} == expected | changed
    assert training.MEAN_PIXEL.tolist() == detection.MEAN_PIXEL.tolist() == [43.53, 39.56, 48.22]
    training.check_model()
    detection.check_model()
    assert len(set(nucleus.VAL_IMAGE_IDS)) == 25 and all(len(name) == 64 for name in nucleus.VAL_IMAGE_IDS)
    assert nucleus.SCHEDULE == [("heads", 20, 1), ("all", 40, 1)]
    assert Path(nucleus.RESULTS_DIR) == FOLDER.parents[1] / "results" / "nucleus"


# ---- data set


@pytest.mark.parametrize(
    ("subset", "names"),
    [("train", "abd"), ("val", "c"), ("stage1_train", "abcd"), ("stage1_test", ["t1", "t2"])],
)
def test_subsets(folder, subset, names):
    dataset = nucleus.make_dataset(folder, subset)
    assert [dataset.image_reference(i) for i in dataset.image_ids] == list(names)
    assert dataset.class_names == ["BG", "nucleus"] and dataset.image_info[0]["source"] == "nucleus"


def test_images_and_masks(folder):
    dataset = nucleus.make_dataset(folder, "val")
    masks, class_ids = dataset.load_mask(0)
    assert np.array_equal(masks, squares((2, 3), (30, 40), (48, 5))) and masks.dtype == bool
    assert class_ids.tolist() == [1, 1, 1] and class_ids.dtype == np.int32
    image = dataset.load_image(0)
    assert image.shape == (70, 90, 3) and (image[masks.any(-1)] == 200).all()
    masks, class_ids = nucleus.make_dataset(folder, "stage1_test").load_mask(1)
    assert masks.shape == (70, 90, 0) and masks.dtype == bool and len(class_ids) == 0


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_masks_of_any_kind_of_png(folder, mode):
    path = folder / "stage1_train" / "a" / "masks" / "000.png"
    with PIL.Image.open(path) as mask:
        converted = mask.convert(mode)
    converted.save(path)
    masks, _ = nucleus.make_dataset(folder, "train").load_mask(0)
    assert np.array_equal(masks, squares((10, 30)))


def test_an_empty_mask_and_no_masks(folder):
    write_image(folder / "stage1_train", "e", np.zeros((70, 90, 1), bool))
    write_image(folder / "stage1_train", "f", np.zeros((70, 90, 0), bool))
    dataset = nucleus.make_dataset(folder, "train")
    assert dataset.load_mask(3)[0].shape == (70, 90, 1) and not dataset.load_mask(3)[0].any()
    assert dataset.load_mask(4)[0].shape == (70, 90, 0)


def test_other_sources_are_left_to_others(folder):
    dataset = nucleus.make_dataset(folder, "val")
    dataset.add_image("elsewhere", 1, path=None)
    dataset.prepare()
    assert dataset.load_mask(1)[0].shape == (0, 0, 0) and dataset.image_reference(1) == ""


class Derived(nucleus.NucleusDataset):
    """What a user's subclass is."""


def test_subclasses_work(folder):
    dataset = Derived()
    dataset.load_nucleus(folder, "val")
    dataset.prepare()
    assert dataset.image_reference(0) == "c"


def damage(folder, what):
    image = folder / "stage1_train" / "c"
    match what:
        case "size":
            PIL.Image.new("L", (90, 71)).save(image / "masks" / "001.png")
        case "text":
            (image / "masks" / "001.png").write_text("not a picture")
        case "short":
            path = image / "masks" / "001.png"
            path.write_bytes(path.read_bytes()[:60])
        case "image":
            (image / "images" / "c.png").write_bytes(b"")


@pytest.mark.parametrize(
    ("what", "message"),
    [("size", r"001.png has 90 x 71 pixels, but its image has 90 x 70"), ("text", "001.png is no image"),
     ("short", "001.png cannot be read"), ("image", "c.png is no image")],
)  # fmt: skip
def test_damaged_files_are_named(folder, what, message):
    damage(folder, what)
    with pytest.raises(ValueError, match=message):
        nucleus.make_dataset(folder, "val").load_mask(0)


def test_what_is_missing_is_named(folder):
    load = nucleus.NucleusDataset().load_nucleus
    with pytest.raises(ValueError, match="received 'stage_1_train'.*Did you mean 'stage1_train'"):
        load(folder, "stage_1_train")
    with pytest.raises(FileNotFoundError, match="stage2_test: there is no such folder"):
        load(folder, "stage2_test")
    (folder / "stage2_test").mkdir()
    with pytest.raises(FileNotFoundError, match="no images of the subset 'stage2_test'"):
        load(folder, "stage2_test")
    (folder / "stage1_train" / "e" / "masks").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"missing are .*e/images/e.png$"):
        load(folder, "train")
    load(folder, "val")
    for mask in (folder / "stage1_train" / "c" / "masks").iterdir():
        mask.unlink()
    (folder / "stage1_train" / "c" / "masks").rmdir()
    with pytest.raises(FileNotFoundError, match=r"missing are .*c/masks$"):
        load(folder, "val")


def test_nuclei_of_your_own_are_trained_without_validation(folder, monkeypatch, capsys):
    monkeypatch.setattr(nucleus, "VAL_IMAGE_IDS", [f"v{n}" for n in range(9)])
    with pytest.raises(FileNotFoundError, match="stage1_train has no images of the subset 'val'"):
        nucleus.make_dataset(folder, "val")
    seen = []
    monkeypatch.setattr("mrcnn.engine.command_line.train_in_stages", lambda *given, **_: seen.append(given))
    nucleus.train(types.SimpleNamespace(log_dir="logs"), folder, "stage1_train")
    (_, train_set, val_set, stages), = seen
    assert train_set.num_images and val_set is None and stages == nucleus.SCHEDULE
    assert "Training without validation" in capsys.readouterr().out


def test_files_that_are_missing_are_counted(folder):
    for name in "vwxyz":
        (folder / "stage1_train" / name).mkdir()
    with pytest.raises(FileNotFoundError, match=r"v/images/v.png.* and 5 more"):
        nucleus.make_dataset(folder, "stage1_train")


# ---- augmentation


def test_augmentation_moves_images_and_masks_alike():
    image, masks = np.full((64, 64, 3), 20, np.uint8), np.zeros((64, 64, 40), bool)
    masks[5:25, 8:50, :20], masks[40:60, 8:20, 20:] = True, True
    image[masks.any(axis=-1)] = 150
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        augmentation = nucleus.make_augmentation()
        warn_of_unmoved_masks(augmentation)
    seen, changed = set(), 0
    for seed in range(150):
        new_image, new_masks = augment(image, masks, augmentation, random.Random(seed))
        bright = new_image[..., 0] > (int(new_image.min()) + int(new_image.max())) / 2
        inside = new_masks.any(axis=-1)
        assert (bright & inside).sum() / (bright | inside).sum() > 0.8  # blur rounds the corners
        moved = [
            (turns, flip) for turns in range(4) for flip in (False, True)
            if np.array_equal(new_masks, np.rot90(masks[:, ::-1] if flip else masks, turns))
        ]  # fmt: skip
        assert moved  # nothing between right angles, and no pixel beside its place
        seen.add(moved[0])
        changed += not np.array_equal(new_image, image)
    assert len(seen) == 8 and 50 < changed < 145  # all symmetries of a square, and some images as they were


def test_without_the_library_training_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "imgaug", None)
    with pytest.raises(ImportError, match="pip install imaug"):
        nucleus.make_augmentation()


# ---- run-length encoding


def test_encodings_are_the_originals():
    y, x = np.mgrid[0:20, 0:27]
    disks = ((6, 7, 5), (9, 10, 4), (15, 20, 4), (3, 24, 2))
    masks = np.stack([(y - cy) ** 2 + (x - cx) ** 2 < r * r for cy, cx, r in disks], axis=-1)
    whole = "65 5 84 7 103 9 123 9 143 9 163 9 183 9 204 7 225 5"
    others = ["148 5 167 7 187 7 207 7 227 7 247 7 268 5", "354 5 373 7 393 7 413 7 433 7 453 7 474 5",
              "463 3 483 3 503 3"]  # fmt: skip
    encoded = [nucleus.rle_encode(masks[:, :, n].astype(np.int32)) for n in range(4)]
    assert encoded == [whole, *others]
    assert [nucleus.rle_decode(rle, (20, 27))[6:9].sum() for rle in encoded] == [27, 19, 0, 0]
    lines = ["65 5 84 7 103 9 123 9 143 5 163 4 183 4 204 3 225 2", *others]
    scores = np.array([0.5, 0.9, 0.7, 0.8])
    assert nucleus.mask_to_rle("img", masks, scores) == "\n".join(f"img, {line}" for line in lines)
    assert nucleus.mask_to_rle("img", masks[:, :, :0], np.zeros(0)) == "img,"


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_encoding_and_decoding_are_inverse(mask):
    rle = nucleus.rle_encode(mask)
    decoded = nucleus.rle_decode(rle, mask.shape)
    assert np.array_equal(decoded, mask) and decoded.dtype == bool
    numbers = np.array(rle.split(), int).reshape(-1, 2)
    pixels = [n for start, length in numbers for n in range(start, start + length)]
    assert pixels == [x * len(mask) + y + 1 for x, y in np.argwhere(mask.T)]  # from 1, column after column


@pytest.mark.parametrize(
    ("rle", "message"),
    [("3", "pairs of whole numbers"), ("1 2 x 4", "pairs of"), ("1 -2", "pairs of"), ("0 1", "outside a mask of 4 x 5"),
     ("20 2", "outside")],
)  # fmt: skip
def test_wrong_encodings_are_refused(rle, message):
    with pytest.raises(ValueError, match=message):
        nucleus.rle_decode(rle, (4, 5))
    assert nucleus.rle_decode("20 1", (4, 5)).sum() == 1


@given(MASKS, st.data())
def test_each_pixel_goes_to_the_highest_score(masks, data):
    scores = np.array(data.draw(st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=masks.shape[2],
                                         max_size=masks.shape[2])))  # fmt: skip
    text = nucleus.mask_to_rle("id", masks, scores)
    owner = np.where(masks.any(-1), np.where(masks, scores, -1).argmax(-1), -1)  # the first of equal scores
    expected = [owner == n for n in range(masks.shape[2]) if (owner == n).any()]
    lines = text.split("\n")
    assert all(line.startswith("id,") for line in lines)
    found = [nucleus.rle_decode(line.split(",")[1], owner.shape) for line in lines]
    assert np.array_equal(found, expected or [owner >= 0])
    assert np.sum(found, axis=0).max() <= 1


def test_as_many_scores_as_masks():
    with pytest.raises(ValueError, match=r"received shapes \(4, 5, 2\) and \(3,\)"):
        nucleus.mask_to_rle("id", np.zeros((4, 5, 2)), np.zeros(3))


# ---- the competition's score


def test_the_score_by_hand():
    truth = np.zeros((10, 30), int)
    truth[:, :10], truth[:, 20:] = 1, 2
    found = np.zeros_like(truth)
    found[:8, :10], found[:, 14:20] = 1, 2  # an IoU of 0.8, and a nucleus that is none
    # from 0.5 to 0.75 there is one hit, one too many and one missed: 1 / 3 at six thresholds of ten
    assert nucleus.competition_score(truth, found) == pytest.approx(6 / 10 / 3)
    assert nucleus.competition_score(truth, truth) == 1
    assert nucleus.competition_score(truth, np.zeros_like(truth)) == 0
    assert nucleus.competition_score(np.zeros_like(truth), found) == 0
    assert nucleus.competition_score(np.zeros_like(truth), np.zeros_like(truth)) == 1


@given(arrays(np.int32, (8, 9), elements=st.integers(0, 4)), arrays(np.int32, (8, 9), elements=st.integers(0, 4)))
def test_the_score_as_the_competition_defines_it(truth, found):
    """Counted object by object; numbers may be missing, which are no objects."""
    true_masks, masks = [[labels == n for n in np.unique(labels) if n] for labels in (truth, found)]
    scores = []
    for threshold in np.linspace(0.5, 0.95, 10):
        hits = sum(any((a & b).sum() / (a | b).sum() > threshold for b in masks) for a in true_masks)
        total = hits + (len(masks) - hits) + (len(true_masks) - hits)
        scores.append(hits / total if total else 1)
    assert nucleus.competition_score(truth, found) == pytest.approx(np.mean(scores))
