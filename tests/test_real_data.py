"""The main job on real photos: a large model detects."""

import numpy as np
import pytest
import seeded
import skimage.io

from mrcnn import model as modellib
from mrcnn.config import Config


class CocoLikeConfig(Config):
    NAME = "coco"
    NUM_CLASSES = 81
    IMAGES_PER_GPU = 1
    DETECTION_MIN_CONFIDENCE = 0


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
