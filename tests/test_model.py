"""The public face: old names, a config in place of values, and what importing it needs."""

import tomllib
from pathlib import Path

import golden_files
import keras
import numpy as np
import pytest
import tiny

import mrcnn.utils
from mrcnn import model as modellib
from mrcnn.config import Config
from mrcnn.data import loader
from mrcnn.engine import requirements
from mrcnn.network import assemble

# the layers and losses have their golden tests beside their own files
CASES = golden_files.cases(
    "model_functions", "compute_backbone_shapes", "build_rpn_targets", "build_detection_targets", "mold_image",
    "unmold_image", "compose_image_meta", "parse_image_meta",
)  # fmt: skip


@pytest.mark.parametrize("case", [case for case in CASES if not case.entry.get("soft")], ids=str)
def test_golden(case):
    case.check(modellib, config=Config)


def test_utils_is_a_part_of_it():
    assert modellib.utils is mrcnn.utils


def test_shapes_and_anchors_are_computed_in_one_place():
    assert modellib.compute_backbone_shapes is loader.compute_backbone_shapes
    assert assemble.config_anchors is loader.config_anchors


def test_everything_listed_is_there():
    assert all(getattr(modellib, name) is not None for name in modellib.__all__)


def test_the_anchors_of_the_config_are_known_as_a_grid(monkeypatch):
    """Targets for them come from the grid; all others, and those of an impossible config, are compared one by one."""
    config, seen = tiny.config(), []
    build = modellib._targets.build_rpn_targets
    monkeypatch.setattr(modellib._targets, "build_rpn_targets",
                        lambda shape, anchors, *rest: (seen.append(type(anchors)), build(shape, anchors, *rest))[1])
    anchors = loader.config_anchors(config, config.IMAGE_SHAPE)
    impossible = tiny.config(RPN_ANCHOR_SCALES=(8,))
    results = []
    for given, settings in ((anchors, config), (anchors.tolist(), config), (anchors.astype("float32"), config),
                            (anchors[::-1], config), (anchors + 1, config), (anchors, impossible)):  # fmt: skip
        np.random.seed(0)
        ids, boxes = np.array([1, -1]), np.array([[8, 8, 30, 40], [0, 40, 9, 60]])
        results.append(modellib.build_rpn_targets((64, 64, 3), given, ids, boxes, settings))
    names = [kind.__name__ for kind in seen]
    assert names == ["AnchorGrid", "AnchorGrid", "ndarray", "ndarray", "ndarray", "ndarray"]
    for same in (1, 5):
        np.testing.assert_array_equal(results[same][0], results[0][0])
        np.testing.assert_array_equal(results[same][1], results[0][1])


def test_one_image_is_a_batch_of_one():
    """The functions of one image agree with the layers, which take batches."""
    config = tiny.config(DETECTION_NMS_THRESHOLD=0.5)
    draw = np.random.default_rng(3)
    corners = draw.uniform(0, 0.5, (16, 2))
    rois = np.concatenate([corners, corners + draw.uniform(0.1, 0.5, (16, 2))], axis=1).astype("float32")
    probs = draw.dirichlet(np.ones(4), 16).astype("float32")
    deltas = draw.normal(0, 0.3, (16, 4, 4)).astype("float32")
    meta = modellib.compose_image_meta(0, (64, 64, 3), (64, 64, 3), (0, 0, 64, 64), 1, np.zeros(4)).astype("float32")
    arrays = [keras.ops.convert_to_tensor(array) for array in (rois, probs, deltas)]
    window = keras.ops.convert_to_tensor(np.array([0, 0, 1, 1], "float32"))
    one = modellib.refine_detections_graph(*arrays, window, config)
    batch = modellib.DetectionLayer(config)([array[None] for array in arrays] + [meta[None]])
    assert one.shape == (6, 6) and keras.ops.convert_to_numpy(one)[0, 4] > 0
    np.testing.assert_allclose(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(batch)[0], atol=1e-6)


def test_targets_of_one_image():
    config = tiny.config(USE_MINI_MASK=False)
    boxes = np.array([[0.1, 0.1, 0.5, 0.5], [0, 0, 0, 0]], "float32")
    proposals = np.array([[0.1, 0.1, 0.5, 0.48], [0.6, 0.6, 0.9, 0.9], [0, 0, 0, 0]], "float32")
    masks = np.zeros((64, 64, 2), bool)
    masks[6:32, 6:32, 0] = True
    inputs = [keras.ops.convert_to_tensor(x) for x in (proposals, np.array([2, 0], "int32"), boxes, masks)]
    outputs = modellib.detection_targets_graph(*inputs, config)
    rois, class_ids, deltas, targets = map(keras.ops.convert_to_numpy, outputs)
    np.testing.assert_allclose(rois[:3], proposals)
    np.testing.assert_array_equal(class_ids, [2, 0, 0, 0, 0, 0, 0, 0])
    assert deltas.shape == (8, 4) and targets.shape == (8, 28, 28) and targets[0].mean() > 0.8


def test_random_rois_lie_in_the_image():
    rois = modellib.generate_random_rois((64, 64, 3), 30, np.array([1]), np.array([[10, 10, 30, 40]]))
    assert rois.shape == (30, 4) and (rois[:, 2:] > rois[:, :2]).all() and rois.min() >= 0 and rois.max() <= 64


def test_layers_have_defaults():
    layer = modellib.ProposalLayer(10, 0.5)
    assert (layer.proposal_count, layer.nms_threshold, layer.pre_nms_limit) == (10, 0.5, 6000)
    assert modellib.DetectionLayer().settings["max_instances"] == 100


def test_molding_takes_the_mean_of_the_config():
    config = tiny.config(MEAN_PIXEL=np.array([1.0, 2.0, 3.0]))
    image = np.full((2, 2, 3), 7, "uint8")
    np.testing.assert_allclose(modellib.mold_image(image, config)[0, 0], [6, 5, 4])
    np.testing.assert_array_equal(modellib.unmold_image(modellib.mold_image(image, config), config), image)


@pytest.mark.parametrize("version", ["2.2.4", "2.15.0", "3.9.2"])
def test_an_old_keras_is_named(version):
    with pytest.raises(ImportError, match=f"needs Keras {requirements.NEEDED}.*Keras {version} is installed.*pip"):
        requirements.check_keras(version)


@pytest.mark.parametrize("version", ["3.15", "3.15.1", "3.20.0.dev2", "4.0"])
def test_a_new_keras_will_do(version):
    requirements.check_keras(version)


def test_the_needed_version_is_that_of_the_package():
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
    assert f"keras>={requirements.NEEDED}" in project["dependencies"]
