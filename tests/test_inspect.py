"""Printed arrays, and tensors by name."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tiny

from mrcnn.engine.inference import Molding, mold_inputs
from mrcnn.engine.inspect import Inspector, log
from mrcnn.geometry.boxes import norm_boxes
from mrcnn.network.assemble import build_model, config_anchors

ROI_STEPS = ("pre_nms_anchors", "refined_anchors", "refined_anchors_clipped", "rpn_non_max_suppression")


@pytest.fixture(scope="module")
def inference():
    config = tiny.config()
    model = build_model("inference", config)
    molding = Molding(3, 64, 64, 0, "none", config.MEAN_PIXEL, 4, 32)
    images, metas, _ = mold_inputs([tiny.photo(64, 64, seed) for seed in (1, 2)], molding)
    anchors = norm_boxes(config_anchors(config, (64, 64, 3)), (64, 64))
    inputs = {"input_image": images, "input_image_meta": metas, "input_anchors": np.stack([anchors] * 2)}
    inputs = {name: array.astype("float32") for name, array in inputs.items()}
    return SimpleNamespace(model=model, inspector=Inspector(model), inputs=inputs)


@pytest.mark.parametrize("array, columns", [
    (np.array([[1.5, -2.25]], "float32"), "shape: (1, 2)                min:   -2.25000  max:    1.50000  float32"),
    (np.array([True, False]), "shape: (2,)                  min:    0.00000  max:    1.00000  bool"),
    (np.zeros((0, 4), "int32"), "shape: (0, 4)                min:             max:             int32"),
    ([3, 4], "shape: (2,)                  min:    3.00000  max:    4.00000  int64")])
def test_log_prints_columns(capsys, array, columns):
    log("rois", array)
    assert capsys.readouterr().out == "rois".ljust(25) + columns + "\n"


def test_log_prints_a_text_alone(capsys):
    log("hello")
    assert capsys.readouterr().out == "hello\n"


@pytest.mark.parametrize("suffix", ["", ":0"])
@pytest.mark.parametrize("step", ROI_STEPS)
def test_finds_the_steps_of_the_proposal_layer(inference, step, suffix):
    pillar = inference.model.get_layer("ROI").output
    tensor = inference.inspector.ancestor(pillar, f"ROI/{step}{suffix}")
    assert isinstance(tensor, keras.KerasTensor)
    assert tensor is inference.inspector.ancestor(pillar, f"ROI/{step}")


@pytest.mark.parametrize("version", "23")
def test_knows_the_original_names_of_the_suppression(inference, version):
    pillar = inference.model.get_layer("ROI").output
    tensor = inference.inspector.ancestor(pillar, f"ROI/rpn_non_max_suppression/NonMaxSuppressionV{version}:0")
    assert tensor is inference.inspector.ancestor(pillar, "ROI/rpn_non_max_suppression")


def test_finds_layers_and_regular_expressions(inference):
    pillar = inference.model.get_layer("ROI").output
    found = inference.inspector.ancestor(pillar, "fpn_p3")
    assert found is inference.model.get_layer("fpn_p3").output
    assert inference.inspector.ancestor(pillar, r"fpn_(p3|none)") is found


@pytest.mark.parametrize("name", ["ROI/unknown:0", "nothing", "mrcnn_mask", "fpn"])
def test_what_is_no_ancestor_is_none(inference, name):
    checked = []
    assert inference.inspector.ancestor(inference.model.get_layer("ROI").output, name, checked) is None
    assert len(checked) > 30


def test_runs_everything_that_has_a_name(inference, capsys):
    steps = {step: f"ROI/{step}:0" for step in ROI_STEPS}
    wanted = [*steps.items(), ("proposals", inference.model.get_layer("ROI")), ("raw", "rpn_model/rpn_class_raw"),
              ("keep", "mrcnn_detection/keep"), ("P3", inference.model.get_layer("fpn_p3").output)]
    got = inference.inspector.run(wanted, inference.inputs)
    assert list(got) == [name for name, _ in wanted]
    assert got["pre_nms_anchors"].shape == got["refined_anchors"].shape
    assert got["pre_nms_anchors"].shape[0] == 2 and got["P3"].shape == (2, 8, 8, 8)
    assert got["raw"].shape[-1] == 6 and got["keep"].shape == (2, 6)
    # the chain that the notebooks draw: refined, clipped, then chosen by index
    np.testing.assert_array_equal(np.clip(got["refined_anchors"], 0, 1), got["refined_anchors_clipped"])
    kept = got["rpn_non_max_suppression"]
    assert kept.ndim == 1 and (kept >= 0).all() and len(kept) > 0
    np.testing.assert_array_equal(got["refined_anchors_clipped"][0, kept], got["proposals"][0, : len(kept)])
    assert not got["proposals"][0, len(kept):].any()
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == list(got)


def test_keeps_the_models_that_it_builds(inference):
    for _ in range(2):
        inference.inspector.run(["ROI/refined_anchors"], inference.inputs)
        count = len(inference.inspector._models)
    inference.inspector.run(["ROI/refined_anchors"], inference.inputs)
    assert len(inference.inspector._models) == count


@pytest.mark.parametrize("outputs", [["nothing"], [("a", None)], [("a", 3)]])
def test_unknown_outputs_are_errors(inference, outputs):
    with pytest.raises(ValueError, match="outputs: '(nothing|a)' must be a tensor"):
        inference.inspector.run(outputs, inference.inputs)


def test_training_models_show_what_comes_before_the_targets(inference):
    inspector = Inspector(build_model("training", tiny.config()))
    got = inspector.run(["ROI", "ROI/refined_anchors"], inference.inputs)
    assert got["ROI"].shape == (2, 32, 4)
    with pytest.raises(ValueError, match="computed from ground truth"):
        inspector.run(["mrcnn_mask"], inference.inputs)
