"""Config.PRECISION: what computes in bfloat16, what does not, and how close the results are."""

import keras
import numpy as np
import pytest
import tiny

from mrcnn.engine.mask_rcnn import MaskRCNN
from mrcnn.geometry.boxes import compute_overlaps
from mrcnn.network.assemble import build_model

EXACT = (
    "input_image", "input_image_meta", "input_anchors", "rpn_class", "rpn_bbox", "ROI", "roi_align_classifier",
    "mrcnn_class_logits", "mrcnn_class", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_detection", "roi_align_mask",
    "mrcnn_mask",
)  # fmt: skip
COARSE = (
    "conv1", "bn_conv1", "res2a_branch2a", "res5a_branch2a", "fpn_c5p5", "fpn_p2", "fpn_p6", "mrcnn_class_conv1",
    "mrcnn_class_bn2", "mrcnn_class_conv2", "mrcnn_mask_conv4", "mrcnn_mask_bn4", "mrcnn_mask_deconv",
)  # fmt: skip
IMAGES = [tiny.photo(64, 64, seed) for seed in range(4)]


def detector(precision, folder):
    """A tiny network that has not learned anything, but whose scores are no mere zeros and ones."""
    model = MaskRCNN("inference", tiny.config(PRECISION=precision), folder)
    conv = model.keras_model.get_layer("conv1")
    conv.set_weights([array / 64 for array in conv.get_weights()])
    return model


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("detectors"))
    return {precision: detector(precision, folder) for precision in ("float32", "bfloat16")}


def test_what_computes_in_what(detectors):
    for precision, model in detectors.items():
        network = model.keras_model
        inner = network.get_layer("rpn_model")
        dtypes = {layer.name: layer.compute_dtype for layer in (*network.layers, *inner.layers)}
        assert {dtypes[name] for name in (*EXACT, "rpn_class_raw", "rpn_class_xxx", "rpn_bbox_pred")} == {"float32"}
        assert {dtypes[name] for name in (*COARSE, "rpn_conv_shared")} == {precision}
        assert network.get_layer("fpn_p2").output.dtype == inner.inputs[0].dtype == precision
        assert {weight.dtype for weight in network.weights} == {"float32"}
        assert {tensor.dtype for tensor in network.outputs} == {"float32"}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", ["training", "inference"])
def test_the_policy_of_keras_neither_counts_nor_changes(mode, precision):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        network = build_model(mode, tiny.config(PRECISION=precision))
        assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy("float32")
    found = {layer.compute_dtype for layer in network.layers}
    assert found == {"float32", precision}
    assert {tensor.dtype for tensor in network.outputs} <= {"float32", "int32"}


def test_a_backbone_that_fails_leaves_no_policy_behind():
    def backbone(input_image, stage5=True, train_bn=None):
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        raise RuntimeError("no such luck")

    with pytest.raises(RuntimeError, match="no such luck"):
        build_model("inference", tiny.config(PRECISION="bfloat16", BACKBONE=backbone))
    assert keras.config.dtype_policy().name == "float32"


def test_scores_and_deltas_are_close(detectors):
    values = {}
    for precision, model in detectors.items():
        network = model.keras_model
        values[precision] = model.run_graph(
            IMAGES[:1], [(name, network.get_layer(name).output) for name in ("fpn_p2", "rpn_class", "rpn_bbox")]
        )
    for name, exact in values["float32"].items():
        coarse = values["bfloat16"][name]
        assert exact.dtype == coarse.dtype == np.float32  # of bfloat16, too: matplotlib would not take it
        difference = np.abs(exact - coarse).max()
        assert 0 < difference < 0.03 * np.abs(exact).max()
    assert len(np.unique(values["bfloat16"]["rpn_class"])) > 0.9 * len(np.unique(values["float32"]["rpn_class"]))


def test_detections_are_close(detectors):
    exact, coarse = (detectors[precision].detect(IMAGES) for precision in ("float32", "bfloat16"))
    twins = count = 0
    for one, other in zip(exact, coarse, strict=True):
        assert {key: value.dtype for key, value in one.items()} == {key: value.dtype for key, value in other.items()}
        count += len(one["rois"])
        for box, class_id, score in zip(one["rois"], one["class_ids"], one["scores"], strict=True):
            overlaps = compute_overlaps(box[None].astype(float), other["rois"].astype(float))[0]
            near = (overlaps > 0.6) & (other["class_ids"] == class_id) & (np.abs(other["scores"] - score) < 0.02)
            twins += near.any()
    assert count >= 8 and twins >= 0.75 * count


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{precision: (model, losses of each step, folder)} after one epoch on the same images."""

    class Watch(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.steps = []

        def on_train_batch_end(self, batch, logs=None):
            self.steps.append({name: float(value) for name, value in logs.items()})

    found = {}
    for precision in ("float32", "bfloat16"):
        folder, watch = str(tmp_path_factory.mktemp(precision)), Watch()
        model = MaskRCNN("training", tiny.config(PRECISION=precision, TRAIN_BN=None), folder)
        model.train(tiny.Squares(7), None, 0.01, 1, "all", custom_callbacks=[watch])
        found[precision] = model, watch.steps, folder
    return found


@pytest.mark.slow
def test_losses_are_close(runs):
    exact, coarse = (runs[precision][1] for precision in ("float32", "bfloat16"))
    assert len(exact) == len(coarse) == 2
    for name, value in coarse[0].items():
        assert np.isfinite(value) and value == pytest.approx(exact[0][name], rel=0.05, abs=0.05)
    assert all(np.isfinite(value) for step in coarse for value in step.values())
    assert coarse[0]["loss"] != exact[0]["loss"]


@pytest.mark.slow
def test_weights_and_optimizer_stay_exact(runs):
    model = runs["bfloat16"][0]
    variables = [*model.keras_model.weights, *model.keras_model.optimizer.variables]
    assert {str(variable.dtype) for variable in variables} <= {"float32", "int32", "int64", "uint32"}
    kernel = np.asarray(keras.ops.convert_to_numpy(model.keras_model.get_layer("fpn_p2").kernel))
    assert (kernel.view(np.uint32) & 0xFFFF).any()  # more digits than bfloat16 has


@pytest.mark.slow
def test_a_file_serves_both(runs, model_dir):
    model = runs["float32"][0]
    other = MaskRCNN("inference", tiny.config(PRECISION="bfloat16"), model_dir)
    other.load_weights(model.find_last(), by_name=True)
    saved = tiny.weights_of(model.keras_model)
    for name, array in tiny.weights_of(other.keras_model).items():
        np.testing.assert_array_equal(array, saved[name])


@pytest.mark.slow
def test_a_run_goes_on_in_the_other_precision(runs, capsys):
    model, _, folder = runs["bfloat16"]
    other = MaskRCNN("training", tiny.config(TRAIN_BN=None), folder)
    other.load_weights(other.find_last(), by_name=True)
    other.train(tiny.Squares(7), None, 0.01, 2, "all")
    printed = capsys.readouterr().out
    assert other.log_dir == model.log_dir
    assert "resuming at epoch 2 of 2" in printed and "not restored" not in printed


@pytest.mark.slow
@pytest.mark.backend
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends(backend, run_python, tmp_path):
    code = f"""
import sys; sys.path.insert(0, "tests")
import numpy as np, tiny
from mrcnn.engine.mask_rcnn import MaskRCNN
config = tiny.config(PRECISION="bfloat16")
found = MaskRCNN("inference", config, {str(tmp_path)!r}).detect([tiny.photo(64, 64)])[0]
print(found["scores"].dtype, np.isfinite(found["scores"]).all())
model = MaskRCNN("training", config, {str(tmp_path)!r})
model.train(tiny.Squares(7), None, 0.01, 1, "all")
print("finite", np.isfinite(model.keras_model.history.history["loss"]).all())
"""
    lines = run_python(code, backend).splitlines()
    assert "float32 True" in lines and lines[-1] == "finite True"
