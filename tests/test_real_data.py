"""The main job on real photos: a large model detects, and polygons in a file become a training."""

import json
from pathlib import Path

import numpy as np
import pytest
import seeded
import skimage.draw
import skimage.io

from mrcnn import model as modellib
from mrcnn import utils
from mrcnn.config import Config


class CocoLikeConfig(Config):
    NAME = "coco"
    NUM_CLASSES = 81
    IMAGES_PER_GPU = 1
    DETECTION_MIN_CONFIDENCE = 0


class BalloonConfig(Config):
    NAME = "balloon"
    NUM_CLASSES = 2
    BACKBONE = "resnet50"
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 512
    IMAGES_PER_GPU = 1
    STEPS_PER_EPOCH = 5
    VALIDATION_STEPS = 2
    SEED = 1


class BalloonDataset(utils.Dataset):
    """Photos whose objects are polygons in a file of the VGG image annotator, version 1."""

    def load_balloon(self, folder):
        self.add_class("balloon", 1, "balloon")
        for entry in json.loads((folder / "via_region_data.json").read_text()).values():
            polygons = [region["shape_attributes"] for region in entry["regions"].values()]
            self.add_image("balloon", entry["filename"], str(folder / entry["filename"]), polygons=polygons)
        self.prepare()
        return self

    def load_mask(self, image_id):
        info = self.image_info[image_id]
        shape = skimage.io.imread(info["path"]).shape[:2]
        masks = [
            skimage.draw.polygon2mask(shape, np.stack([p["all_points_y"], p["all_points_x"]], axis=-1))
            for p in info["polygons"]
        ]
        return np.stack(masks, axis=-1), np.ones(len(masks), np.int32)


@pytest.fixture(scope="module")
def coco_like(tmp_path_factory):
    """A ResNet-101 of 81 classes that read its seeded weights from a file, as a user reads the published ones."""
    folder = tmp_path_factory.mktemp("coco")
    model = modellib.MaskRCNN("inference", CocoLikeConfig(), str(folder))
    seeded.fill(model.keras_model)
    path = folder / "mask_rcnn_coco.h5"
    model.keras_model.save_weights(str(path))
    before = seeded.snapshot(model.keras_model)
    for variable in seeded.weights(model.keras_model).values():
        variable.assign(np.zeros(variable.shape))
    model.load_weights(str(path), by_name=True)
    after = seeded.snapshot(model.keras_model)
    assert all(np.array_equal(before[key], after[key]) for key in before)
    return model


def test_every_photo_at_1024(coco_like, data_dir):
    photos = sorted((data_dir / "photos").glob("*.jpg"))
    assert len(photos) >= 20
    for path in photos:
        image = skimage.io.imread(path)
        result = coco_like.detect([image])[0]
        count = len(result["class_ids"])
        assert 0 < count <= 100, path.name
        assert result["masks"].shape == (*image.shape[:2], count) and result["masks"].dtype == bool
        y1, x1, y2, x2 = result["rois"].T
        assert (y1 >= 0).all() and (x1 >= 0).all() and (y2 <= image.shape[0]).all() and (x2 <= image.shape[1]).all()
        assert (y1 < y2).all() and (x1 < x2).all()
        assert (np.diff(result["scores"]) <= 0).all() and (result["scores"] > 0).all()
        assert np.isin(result["class_ids"], np.arange(1, 81)).all()


def test_balloons_are_loaded_and_train(data_dir, model_dir):
    train, val = (BalloonDataset().load_balloon(data_dir / "balloon" / part) for part in ("train", "val"))
    assert (train.num_images, val.num_images) == (61, 13)
    config = BalloonConfig()
    for image_id in val.image_ids:
        image, _, class_ids, boxes, masks = modellib.load_image_gt(val, config, image_id, use_mini_mask=False)
        assert image.shape == (512, 512, 3) and masks.shape == (512, 512, len(class_ids))
        np.testing.assert_array_equal(boxes, utils.extract_bboxes(masks))
        assert (class_ids == 1).all() and masks.any(axis=(0, 1)).all()
    model = modellib.MaskRCNN("training", config, model_dir)
    model.train(train, val, learning_rate=0.001, epochs=2, layers="all")
    log = np.genfromtxt(Path(model.log_dir) / "log.csv", delimiter=",", names=True)
    assert log["epoch"].tolist() == [0, 1] and np.isfinite(log["loss"]).all() and np.isfinite(log["val_loss"]).all()
    assert Path(model.find_last()).name == "mask_rcnn_balloon_0002.h5"
