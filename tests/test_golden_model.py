"""The whole network against the original: what it puts out, its losses, and what one step of training does to it."""

import golden_files
import numpy as np
import pytest
import seeded

from mrcnn import model as modellib
from mrcnn.config import Config
from mrcnn.network.losses import LOSS_NAMES

FORWARD = golden_files.load("forward_inference_r50")
TRAINING = golden_files.load("training_step_r50")
IMAGES = [(variant, image) for variant in FORWARD.index["variants"] for image in variant["images"]]
VARIANTS = [v for v in TRAINING.index["variants"] if not v.get("soft")]
ELSEWHERE = ("loss_weights", "clip_half", "momentum")  # run by `make backends` and `make long-core`, not by `make test`


def build(mode, golden, extra, folder):
    config = golden_files.make_config(Config, golden.settings(extra))
    model = modellib.MaskRCNN(mode, config, folder)
    seeded.fill(model.keras_model)
    return model


@pytest.fixture(scope="module")
def inference_models(tmp_path_factory):
    """Models by variant, built when first asked for."""
    models = {}

    def get(variant):
        if variant["name"] not in models:
            folder = str(tmp_path_factory.mktemp(variant["name"]))
            models[variant["name"]] = build("inference", FORWARD, variant["config"], folder)
        return models[variant["name"]]

    return get


def share_within(got, want, tolerance):
    """Share of rows of `want` whose largest error against the same row of `got` is within the tolerance."""
    return (np.abs(got - want).reshape(len(want), -1).max(axis=1) <= tolerance).mean()


@pytest.mark.slow
@pytest.mark.parametrize("variant, image", IMAGES, ids=[f"{v['name']}-{i['name']}" for v, i in IMAGES])
def test_golden_forward(inference_models, variant, image):
    model, key, tol = inference_models(variant), image["key"], FORWARD.index["tol"]
    raw = [FORWARD[name] for name in image["images"]]
    molded, metas, windows = model.mold_inputs(raw)
    np.testing.assert_array_equal(windows, FORWARD[f"{key}/windows"])
    np.testing.assert_allclose(metas, FORWARD[f"{key}/image_metas"], rtol=1e-6)
    assert np.abs(molded + image["mean_pixel"] - FORWARD[f"{key}/molded_u8"]).max() <= 1.01
    anchors = model.get_anchors(molded[0].shape)
    np.testing.assert_allclose(anchors, FORWARD[f"{key}/anchors"], atol=1e-6)

    # from the original's own pixels on, so that a rounded pixel does not hide an error of the network
    molded = (FORWARD[f"{key}/molded_u8"] - np.array(image["mean_pixel"])).astype("float32")
    inputs = [molded, metas.astype("float32"), np.repeat(anchors[None], len(raw), axis=0)]
    names = ("mrcnn_detection", "mrcnn_class", "mrcnn_bbox", "mrcnn_mask", "rpn_rois", "rpn_class", "rpn_bbox")
    out = dict(zip(names, model.keras_model.predict_on_batch(inputs)))
    np.testing.assert_allclose(out["rpn_class"], FORWARD[f"{key}/rpn_class"], atol=tol["prob_abs"])
    np.testing.assert_allclose(out["rpn_bbox"], FORWARD[f"{key}/rpn_bbox"], atol=tol["rpn_bbox_abs"])
    for b in range(len(raw)):
        order = np.lexsort(np.round(out["rpn_rois"][b], 4).T)
        want_order = np.lexsort(np.round(FORWARD[f"{key}/rpn_rois"][b], 4).T)
        got, want = out["rpn_rois"][b][order], FORWARD[f"{key}/rpn_rois"][b][want_order]
        assert share_within(got, want, tol["roi_shift"]) >= tol["roi_match"]
        want = FORWARD[f"{key}/mrcnn_detection"][b]
        assert share_within(out["mrcnn_detection"][b], want, tol["roi_shift"]) >= tol["det_match"]

    result = model.detect(raw, verbose=0)
    for b in range(len(raw)):
        want = {n: FORWARD[f"{key}/detect{b}/{n}"] for n in ("rois", "class_ids", "scores")}
        # a pixel that resizing rounds the other way swaps boxes of almost equal scores: look for each one's partner
        near = np.abs(result[b]["rois"][None] - want["rois"][:, None]).max(axis=-1) <= 2
        same_class = result[b]["class_ids"][None] == want["class_ids"][:, None]
        assert len(result[b]["rois"]) == len(want["rois"])
        assert (near & same_class).any(axis=1).mean() >= 0.92
        np.testing.assert_allclose(np.sort(result[b]["scores"]), np.sort(want["scores"]), atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("variant", [
    pytest.param(v, marks=pytest.mark.long if v["name"] in ELSEWHERE else (), id=v["name"]) for v in VARIANTS
])  # fmt: skip
def test_golden_training_step(variant, model_dir):
    """Losses, the trained set and the clipped gradients, read off the change of the weights."""
    tol, rate = TRAINING.index["tol"], variant["learning_rate"]
    model = build("training", TRAINING, variant["config"], model_dir)
    model.set_trainable(variant["layers_regex"], verbose=0)
    model.compile(rate, 0.9)
    trained = {id(w) for w in model.keras_model.trainable_weights}
    names = {"/".join(key) for key, w in seeded.weights(model.keras_model).items() if id(w) in trained}
    assert names == set(variant["trainable"])

    before = seeded.snapshot(model.keras_model)
    batch = [TRAINING[f"batch/{i}"] for i in range(TRAINING.index["n_inputs"])]
    logs = model.keras_model.train_on_batch(batch, return_dict=True)
    for name in ("loss", *LOSS_NAMES):
        assert logs[name] == pytest.approx(variant["losses"][0][name], rel=tol["loss_rel"]), name
    penalty = logs["loss"] - sum(logs[name] for name in LOSS_NAMES)
    assert penalty == pytest.approx(variant["losses"][0]["reg"], abs=6e-6)

    after = seeded.snapshot(model.keras_model)
    want = dict(zip(variant["tensors"], TRAINING[f"{variant['name']}/grad_norm"]))
    total = np.sqrt(sum(norm**2 for norm in want.values()))
    for key, old in before.items():
        name, moved = "/".join(key), (old - after[key]) / rate
        if name not in want:
            assert not moved.any(), f"{name} is frozen"
            continue
        rounding = np.sqrt(old.size) * np.abs(old).max() * 6e-8 / rate
        slack = tol["grad_rel"] * max(want[name], 1e-3 * total) + rounding
        assert np.linalg.norm(moved) == pytest.approx(want[name], abs=slack), name

    for losses in variant["losses"][1:]:
        logs = model.keras_model.train_on_batch(batch, return_dict=True)
        assert logs["loss"] == pytest.approx(losses["loss"], rel=2 * tol["loss_rel"])


def test_seeded_values_are_those_of_the_fixture():
    """A guard for the tests above: a name gives the same numbers every time, and no two names the same."""
    kernel = seeded.value("rpn_bbox_pred", "kernel", (1, 1, 512, 12))
    assert kernel.mean() == pytest.approx(0, abs=1e-6) and kernel.std() == pytest.approx(0.9 / np.sqrt(512), rel=0.02)
    assert np.array_equal(kernel, seeded.value("rpn_bbox_pred", "kernel", (1, 1, 512, 12)))
    assert not np.array_equal(kernel, seeded.value("mrcnn_bbox_fc", "kernel", (1, 1, 512, 12)))
