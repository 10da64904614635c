"""What several notebooks share: data by name, objects, layers, and training targets read back."""

from pathlib import Path

import numpy as np
import pytest
from scripts import load_script

from mrcnn import model as modellib
from mrcnn import utils
from mrcnn.data.survey import survey

sources = load_script(Path(__file__).resolve().parents[1] / "notebooks", "sources")


@pytest.fixture(scope="module")
def config():
    return sources.make_config("shapes")


@pytest.fixture(scope="module")
def anchors(config):
    levels, _ = sources.anchor_levels(config, config.IMAGE_SHAPE)
    return np.concatenate(levels)


def test_anchors_by_level_are_those_of_the_network(config, anchors):
    shapes = modellib.compute_backbone_shapes(config, config.IMAGE_SHAPE)
    expected = utils.generate_pyramid_anchors(config.RPN_ANCHOR_SCALES, config.RPN_ANCHOR_RATIOS, shapes,
                                              config.BACKBONE_STRIDES, config.RPN_ANCHOR_STRIDE)  # fmt: skip
    np.testing.assert_array_equal(anchors, expected)
    for boxes, stride in zip(sources.anchor_levels(config, config.IMAGE_SHAPE)[1], config.BACKBONE_STRIDES):
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        assert len(boxes) == 3 and (abs(centers - centers[0]) < 1e-9).all() and (abs(centers - 64) < stride).all()


def test_targets_lead_back_to_the_objects(config, anchors):
    dataset = sources.shapes.make_dataset(4, seed=0)
    batch = next(modellib.data_generator(dataset, config, random_rois=200, batch_size=2, detection_targets=True))
    example = sources.training_example(config, anchors, batch, index=1)
    assert example.image.dtype == np.uint8 and example.image.shape == (128, 128, 3)
    counts = [len(boxes) for boxes in (example.positive, example.negative, example.neutral)]
    assert sum(counts) == len(anchors) and sum(counts[:2]) == config.RPN_TRAIN_ANCHORS_PER_IMAGE
    objects = example.boxes.astype(float)
    found = example.refined_rois[example.roi_class_ids > 0]
    for boxes in (example.refined, found):
        assert len(boxes) and (utils.compute_overlaps(boxes, objects).max(axis=1) > 0.99).all()
    assert example.roi_masks.shape == (len(example.rois), *config.MASK_SHAPE)


def test_regions_are_shown_in_their_surroundings():
    rois = np.array([(40, 40, 60, 80), (0, 0, 10, 10)])
    image, masks = np.zeros((100, 100, 3), np.uint8), np.ones((2, 14, 14))
    pictures, titles = sources.region_panels(image, rois, rois + 1.0, masks, ["circle", "square"])
    assert titles == ["", "circle", "", "square"]
    assert [max(picture.shape[:2]) for picture in pictures] == [140, 14, 140, 14]
    assert all((picture == color).all(axis=2).any() for picture in pictures[::2]
               for color in ((213, 94, 0), (0, 158, 115)))  # fmt: skip


def test_small_shapes_are_many_and_all_visible():
    dataset = sources.small_shapes(0)
    sizes = {(info["height"], info["width"]) for info in dataset.image_info}
    counts = [len(info["shapes"]) for info in dataset.image_info]
    assert len(sizes) == 5 and min(counts) >= 1 and max(counts) > 50
    for image_id in np.argsort(counts)[-3:]:
        assert dataset.load_mask(image_id)[0].any(axis=(0, 1)).all()
    again = sources.small_shapes(0).image_info
    assert [info["shapes"] for info in again] == [info["shapes"] for info in dataset.image_info]


def test_problems_are_told_by_name(config):
    dataset = sources.shapes.make_dataset(3, seed=0)
    dataset.image_info[1]["shapes"] = []
    rows = sources.problem_table(dataset, sources.problems_of(config, survey(dataset)))
    assert {row[0]: row[1:4] for row in rows}["no objects"] == [1, "", "1"]


class Crowded(utils.Dataset):
    """One image with an object and a crowd of the same class."""

    def load_image(self, image_id):
        return np.zeros((128, 128, 3), np.uint8)

    def load_mask(self, image_id):
        masks = np.zeros((128, 128, 2), bool)
        masks[10:50, 20:60, 0] = masks[60:, 60:, 1] = True
        return masks, np.array([1, -1], np.int32)


def test_crowds_are_no_objects_to_find(config):
    dataset = Crowded()
    dataset.add_class("crowded", 1, "person")
    dataset.add_image("crowded", "a", None)
    dataset.prepare()
    image, _, class_ids, boxes, masks = sources.load_objects(dataset, config, 0)

    assert image.shape == (128, 128, 3)
    assert class_ids.tolist() == [1]
    assert boxes.tolist() == [[10, 20, 50, 60]]
    assert masks.shape == (128, 128, 1)


def test_last_layers_are_those_of_the_backbone_s_stages():
    model = sources.open_model("shapes")

    assert sources.last_layers(model) == {f"C{n}": f"res{n}{'a' if n == 5 else 'b'}_out" for n in (2, 3, 4, 5)}
