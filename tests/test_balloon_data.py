"""The Balloon sample on its photos: all of them load and train, and a photo and a video splash."""

import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import test_video
import tiny
from test_balloon import TinyBalloonConfig, balloon

from mrcnn import model as modellib
from mrcnn import utils


class ShortConfig(balloon.BalloonConfig):
    BACKBONE = "resnet50"
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 256
    IMAGES_PER_GPU = 1
    STEPS_PER_EPOCH = 2
    VALIDATION_STEPS = 1
    SEED = 1


@pytest.fixture(scope="module")
def subsets(data_dir):
    return [balloon.load_subset(str(data_dir / "balloon"), subset) for subset in ("train", "val")]


def test_all_photos_and_outlines_are_there(subsets):
    assert [dataset.num_images for dataset in subsets] == [61, 13]
    assert [sum(len(info["polygons"]) for info in dataset.image_info) for dataset in subsets] == [255, 50]
    for dataset in subsets:
        assert dataset.class_names == ["BG", "balloon"]
        for image_id, info in enumerate(dataset.image_info):
            assert dataset.image_reference(image_id) == info["path"] and os.path.isfile(info["path"])
            masks, class_ids = dataset.load_mask(image_id)
            assert masks.shape == (info["height"], info["width"], len(info["polygons"]))
            assert (class_ids == 1).all()
            boxes = utils.extract_bboxes(masks)
            for polygon, area, (y1, x1, y2, x2) in zip(info["polygons"], masks.sum(axis=(0, 1)), boxes, strict=True):
                x, y = np.array(polygon["all_points_x"]), np.array(polygon["all_points_y"])
                assert x.min() <= x1 < x2 <= x.max() and y.min() <= y1 < y2 <= y.max()
                shoelace = abs(np.sum(x * np.roll(y, 1) - y * np.roll(x, 1))) / 2
                assert area == pytest.approx(shoelace, rel=0.05)


def test_the_sizes_are_those_of_the_photos(subsets):
    for image_id, info in enumerate(subsets[1].image_info):
        assert subsets[1].load_image(image_id).shape == (info["height"], info["width"], 3)


def test_balloons_train(subsets, data_dir, model_dir):
    config = ShortConfig()
    val = subsets[1]
    for image_id in val.image_ids:
        image, _, class_ids, boxes, masks = modellib.load_image_gt(val, config, image_id, use_mini_mask=False)
        assert image.shape == (256, 256, 3) and masks.shape == (256, 256, len(class_ids))
        np.testing.assert_array_equal(boxes, utils.extract_bboxes(masks))
        assert (class_ids == 1).all() and masks.any(axis=(0, 1)).all()
    model = modellib.MaskRCNN("training", config, model_dir)
    balloon.train(model, str(data_dir / "balloon"), epochs=1, layers="heads")
    log = np.genfromtxt(Path(model.log_dir) / "log.csv", delimiter=",", names=True)
    assert np.isfinite(log["loss"]) and np.isfinite(log["val_loss"])
    assert Path(model.find_last()).name == "mask_rcnn_balloon_0001.h5"


class Knowing:
    """In a model's place: it knows the balloons of one photo, at any size of it."""

    def __init__(self, masks):
        self.masks = masks

    def detect(self, images):
        (image,) = images
        rows, columns = (np.arange(side) * full // side for side, full in zip(image.shape, self.masks.shape[:2]))
        masks = self.masks[rows][:, columns]
        count = masks.shape[2]
        return [{
            "rois": utils.extract_bboxes(masks), "class_ids": np.ones(count, np.int32), "scores": np.ones(count),
            "masks": masks,
        }]  # fmt: skip


def test_a_photo_splashes(subsets, tmp_path):
    val = subsets[1]
    image, (masks, _) = val.load_image(1), val.load_mask(1)
    path = balloon.detect_and_color_splash(Knowing(masks), val.image_reference(1), output=str(tmp_path))
    with PIL.Image.open(path) as saved:
        splash = np.asarray(saved)
    inside = masks.any(axis=-1)
    assert np.array_equal(splash[inside], image[inside]) and np.ptp(splash[~inside], axis=-1).max() == 0


def test_a_video_of_a_photo_splashes(subsets, tmp_path):
    """The camera moves down over a photo."""
    val = subsets[1]
    with PIL.Image.fromarray(val.load_image(1)) as photo:
        photo.thumbnail((320, 320))
        frame = np.asarray(photo)[: photo.height // 2 * 2, : photo.width // 2 * 2]
    source = test_video.write(tmp_path / "in.mp4", [np.roll(frame, 4 * n, axis=0) for n in range(6)])
    masks = val.load_mask(1)[0]
    path = balloon.detect_and_color_splash(Knowing(masks), video_path=str(source), output=str(tmp_path / "out"))
    frames, times, facts = test_video.read(path)
    assert len(frames) == 6 and facts["codec"] == "h264" and times[1] == pytest.approx(1001 / 30000, abs=1e-4)
    inside = Knowing(masks).detect([frame])[0]["masks"].any(axis=-1)
    for number, splash in enumerate(frames):
        colour = np.ptp(splash.astype(int), axis=-1)
        assert colour[~inside].mean() < 8 and colour[inside].mean() > 20
        assert np.abs(splash.astype(int) - np.roll(frame, 4 * number, axis=0))[inside].mean() < 16


def test_a_network_splashes(subsets, tmp_path, model_dir):
    config = type("OfTwo", (TinyBalloonConfig,), {"IMAGES_PER_GPU": 1})()
    model = modellib.MaskRCNN("inference", config, model_dir)
    path = balloon.detect_and_color_splash(model, subsets[1].image_reference(0), output=str(tmp_path))
    with PIL.Image.open(path) as saved:
        assert saved.size == (subsets[1].image_info[0]["width"], subsets[1].image_info[0]["height"])
    source = test_video.write(tmp_path / "in.mp4", [tiny.photo(64, 96, seed) for seed in range(3)])
    path = balloon.detect_and_draw(model, ["BG", "balloon"], video_path=str(source), output=str(tmp_path))
    assert [frame.shape for frame in test_video.read(path)[0]] == [(64, 96, 3)] * 3
