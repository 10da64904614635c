"""The nucleus sample on real microscopy images: all masks, a training at the sample's own settings, a submission."""

import csv
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tiny
from nucleus_files import Oracle, load_script

from mrcnn import model as modellib
from mrcnn.data.loader import load_image_gt

nucleus = load_script("nucleus")


@pytest.fixture
def folder(data_dir):
    return data_dir / "nucleus"


def submission_of(path, dataset):
    """{index of an image: [H, W] labels} of a submission, which must name every image, and no pixel twice."""
    with open(path, newline="") as file:
        lines = list(csv.reader(file))[1:]
    assert {name for name, _ in lines} == {info["id"] for info in dataset.image_info}
    found = {}
    for image_id in dataset.image_ids:
        info = dataset.image_info[image_id]
        with PIL.Image.open(info["path"]) as image:
            shape = image.size[::-1]
        labels = np.zeros(shape, int)
        for number, rle in enumerate((rle for name, rle in lines if name == info["id"] and rle), start=1):
            mask = nucleus.rle_decode(rle, shape)
            assert mask.any() and not labels[mask].any()
            labels[mask] = number
        found[image_id] = labels
    return found


def test_subsets(folder):
    counts = {name: nucleus.make_dataset(folder, name).num_images for name in list(nucleus.SUBSETS)[:4]}
    assert counts == {"train": 75, "val": 25, "stage1_train": 100, "stage1_test": 5}
    assert sorted((folder / "val_ids.txt").read_text().split()) == sorted(nucleus.VAL_IMAGE_IDS)


def test_all_masks_of_all_images(folder):
    dataset = nucleus.make_dataset(folder, "stage1_train")
    counts, seconds = [], []
    for image_id in dataset.image_ids:
        started = time.process_time()
        masks, class_ids = dataset.load_mask(image_id)
        seconds.append(time.process_time() - started)
        counts.append(len(class_ids))
        assert masks.shape[:2] == dataset.load_image(image_id).shape[:2] and masks.any(axis=(0, 1)).all()
    assert (sum(counts), max(counts), min(counts)) == (4620, 369, 1)
    assert max(seconds) < 2  # a loose bound, as machines differ


def test_images_become_crops_for_training(folder):
    dataset, config = nucleus.make_dataset(folder, "val"), nucleus.NucleusConfig()
    augmentation = nucleus.make_augmentation()
    nuclei = 0
    for image_id in dataset.image_ids[::5]:
        image, _, class_ids, boxes, masks = load_image_gt(
            dataset, config, image_id, augmentation=augmentation, use_mini_mask=True
        )
        assert image.shape == (512, 512, 3) and masks.shape == (56, 56, len(class_ids))
        assert (boxes[:, 2:] - boxes[:, :2] > 0).all() and boxes.max(initial=0) <= 512 and masks.any(axis=(0, 1)).all()
        nuclei += len(class_ids)
    assert nuclei > 5  # a single crop may have none


def test_a_submission_decodes_back_to_the_masks(folder, tmp_path):
    """The truth as a model's answer; where two masks share pixels the one with the higher score has them."""
    dataset = nucleus.make_dataset(folder, "val")
    oracle = Oracle(dataset)
    path = nucleus.detect(oracle, folder, "val", tmp_path)
    for image_id, labels in submission_of(path, dataset).items():
        masks = oracle.answers[image_id]  # the first one has the highest score
        owner = np.where(masks.any(axis=-1), masks.argmax(axis=-1) + 1, 0)
        assert np.array_equal(labels, np.unique(owner, return_inverse=True)[1].reshape(owner.shape))


def test_the_truth_scores_one(folder):
    dataset = nucleus.make_dataset(folder, "val")
    result = nucleus.evaluate(Oracle(dataset), folder, "val")
    assert result["segm"]["AP"] > 0.99 and result["competition"] > 0.99 and result["images"] == 25


class TinyInferenceConfig(tiny.TinyConfig):
    """The sample's enlarging and padding, for a network that knows nothing."""

    NAME = "nucleus"
    NUM_CLASSES = 2
    IMAGES_PER_GPU = 1
    IMAGE_RESIZE_MODE = "pad64"
    IMAGE_MIN_SCALE = 2.0
    DETECTION_MAX_INSTANCES = 100


@pytest.mark.slow
def test_detect_real_test_images(folder, tmp_path):
    model = modellib.MaskRCNN("inference", TinyInferenceConfig(), str(tmp_path))
    path = Path(nucleus.detect(model, folder, "stage1_test", tmp_path))
    dataset = nucleus.make_dataset(folder, "stage1_test")
    assert len(submission_of(path, dataset)) == 5
    for info in dataset.image_info:
        with PIL.Image.open(path.with_name(info["id"] + ".png")) as picture, PIL.Image.open(info["path"]) as image:
            assert picture.size == image.size


@pytest.mark.slow
def test_train_at_the_samples_settings(folder, tmp_path, monkeypatch):
    """Two steps of the ResNet-50 on crops of 512 pixels, one image per step."""
    monkeypatch.setattr(nucleus.NucleusConfig, "VALIDATION_STEPS", 1)
    few = ["--batch-size", "1", "--steps", "2", "--epochs", "1", "--seed", "1"]
    shared = ["--dataset", str(folder), "--logs", str(tmp_path / "logs")]
    nucleus.main(["train", "--weights", "none", "--subset", "train", *few, *shared])
    (checkpoint,) = tmp_path.glob("logs/nucleus*/mask_rcnn_nucleus_0001.h5")
    assert checkpoint.stat().st_size > 150e6
