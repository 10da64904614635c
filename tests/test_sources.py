"""What several notebooks share: data by name, objects, layers, and training targets read back."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from scripts import load_script

from mrcnn import COCO_CLASS_NAMES, utils
from mrcnn import model as modellib
from mrcnn.data.survey import survey

sources = load_script(Path(__file__).resolve().parents[1] / "notebooks", "sources")

NAMES = ["shapes", "coco", "balloon", "nucleus"]


# ------------------------------------------------------------------ by name
def test_bad_names_are_refused():
    message = r"DATA must be one of shapes, coco, balloon, nucleus; received 'ballon'. Did you mean 'balloon'\?"
    for function in (sources.make_config, sources.open_dataset, sources.open_model, sources.class_names):
        with pytest.raises(ValueError, match=message):
            function("ballon")
    with pytest.raises(ValueError, match="DATA must be one of .*; received None$"):
        sources.make_config(None)
    with pytest.raises(ValueError, match="subset must be one of train, val; received 'validation'"):
        sources.open_dataset("shapes", "validation")
    with pytest.raises(ValueError, match="mode must be one of training, inference; received 'infer'. Did you mean"):
        sources.make_config("shapes", "infer")


@pytest.mark.parametrize("name", NAMES[1:])
def test_missing_data_says_where_to_put_it(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MRCNN_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        sources.open_dataset(name)
    assert all(part in str(error.value) for part in (str(tmp_path / name), "FOLDER", "MRCNN_DATA", '"shapes"'))
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        sources.open_dataset(name, folder=tmp_path / "elsewhere")
    monkeypatch.delenv("MRCNN_DATA")
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match="datasets"):
        sources.open_dataset(name)
    (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError, match=name):  # by the loader of that format
        sources.open_dataset(name, folder=tmp_path / name)


def test_shapes_are_always_the_same():
    train, val = sources.open_dataset("shapes"), sources.open_dataset("shapes", "val", "no folder is looked at")
    assert (train.num_images, val.num_images) == (500, 50)
    assert train.class_names == sources.class_names("shapes")
    again = sources.open_dataset("shapes", "val")
    assert np.array_equal(val.load_image(3), again.load_image(3))
    assert not np.array_equal(val.load_image(0), train.load_image(0))


def test_a_folder_is_opened(tmp_path):
    folder = tmp_path / "mine" / "val"
    folder.mkdir(parents=True)
    PIL.Image.fromarray(np.full((60, 80, 3), 9, np.uint8)).save(folder / "a.png")
    shape = {"name": "circle", "cx": 40, "cy": 30, "r": 9}
    region = {"shape_attributes": shape, "region_attributes": {}}
    via = {"a": {"filename": "a.png", "size": -1, "regions": {"0": region}}}
    (folder / "via_region_data.json").write_text(json.dumps(via))
    dataset = sources.open_dataset("balloon", "val", str(tmp_path / "mine"))
    assert dataset.num_images == 1 and dataset.class_names == sources.class_names("balloon") == ["BG", "balloon"]


@pytest.mark.parametrize("name", NAMES)
def test_settings_fit_a_notebook(name):
    training, inference = sources.make_config(name), sources.make_config(name, "inference")
    assert training.NAME == inference.NAME == name
    assert training.SEED == inference.SEED == 0
    assert inference.BATCH_SIZE == 1 and inference.DETECTION_MIN_CONFIDENCE == 0
    assert training.NUM_CLASSES == inference.NUM_CLASSES == len(sources.class_names(name))
    assert max(inference.IMAGE_SHAPE) <= 512 or name == "nucleus"
    for config in (training, inference):
        config.check_model()


def test_class_names_of_coco_are_the_published_ones():
    assert sources.class_names("coco") == COCO_CLASS_NAMES


def test_the_model_of_shapes_is_trained(capsys):
    model = sources.open_model("shapes")
    assert "loaded 161 of 161 arrays" in capsys.readouterr().out
    assert sources.last_layers(model).keys() == {"C2", "C3", "C4", "C5"}


def test_without_weights_a_line_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sources.WEIGHTS, "shapes", tmp_path / "none.h5")
    sources.open_model("shapes")
    assert "the network is untrained" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="none.h5"):
        sources.open_model("shapes", weights=tmp_path / "none.h5")


@pytest.mark.slow
def test_the_backbone_follows_the_weights(tmp_path, capsys):
    class Small(sources.BalloonInferenceConfig):
        IMAGE_MIN_DIM = IMAGE_MAX_DIM = 128

    class SmallDeep(Small):
        BACKBONE = "resnet101"

    path = tmp_path / "deep.h5"
    sources.modellib.MaskRCNN("inference", SmallDeep(), str(tmp_path)).keras_model.save_weights(str(path))
    model = sources.open_model("balloon", config=Small(), weights=path)
    assert model.config.BACKBONE == "resnet101" and sources.last_layers(model)["C4"] == "res4w_out"
    assert "loaded" in capsys.readouterr().out


# ------------------------------------------------------------------ layers, anchors, targets
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
