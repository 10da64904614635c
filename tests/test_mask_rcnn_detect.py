"""Class MaskRCNN in mode "inference", on a tiny network."""

import importlib.util
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tiny

from mrcnn.engine import inference
from mrcnn.engine.mask_rcnn import MaskRCNN
from mrcnn.geometry.boxes import denorm_boxes

on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="about TensorFlow's traces")


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return MaskRCNN("inference", tiny.config(IMAGE_RESIZE_MODE="pad64"), str(tmp_path_factory.mktemp("detector")))


def test_each_image_gets_the_detections_that_it_gets_alone(detector):
    images = [tiny.photo(h, w, seed=h + w) for h, w in ((64, 64), (70, 100), (50, 40), (128, 128), (100, 70))]
    together = detector.detect(images)
    for image, got in zip(images, together, strict=True):
        (want,) = detector.detect([image])
        assert got["masks"].shape == (*image.shape[:2], len(got["rois"]))
        np.testing.assert_array_equal(got["class_ids"], want["class_ids"])
        np.testing.assert_allclose(got["scores"], want["scores"], atol=1e-5)
        assert np.abs(got["rois"] - want["rois"]).max(initial=0) <= 1


def test_masks_of_three_kinds(detector):
    tools = pytest.importorskip("pycocotools.mask")
    images = [tiny.photo(64, 64, seed) for seed in (1, 2)]
    results = [detector.detect(images, masks=kind) for kind in ("full", "box", "rle")]
    assert sum(len(full["rois"]) for full in results[0]) > 0
    for image, full, box, rle in zip(images, *results, strict=True):
        assert len(full["rois"]) == len(box["masks"]) == len(rle["masks"])
        for n, (y1, x1, y2, x2) in enumerate(full["rois"]):
            np.testing.assert_array_equal(box["masks"][n], full["masks"][y1:y2, x1:x2, n])
            assert rle["masks"][n]["size"] == list(image.shape[:2]) and isinstance(rle["masks"][n]["counts"], str)
            np.testing.assert_array_equal(tools.decode(rle["masks"][n]), full["masks"][..., n])
    with pytest.raises(ValueError, match="masks must be one of.*'boxs'.*Did you mean 'box'"):
        detector.detect([image], masks="boxs")
    with pytest.raises(ValueError, match="masks must be one of"):
        detector.detect_molded(*detector.mold_inputs([image])[:2], masks=True)


def test_detects_what_the_model_predicts(detector):
    images, metas, _ = detector.mold_inputs([tiny.photo(64, 64, seed) for seed in (1, 2)])
    anchors = np.stack([detector.get_anchors(images[0].shape)] * 2)
    rows, _, _, masks, *_ = detector.keras_model.predict_on_batch([images, metas, anchors])
    for got, want, planes in zip(detector.detect_molded(images, metas), rows, masks, strict=True):
        expected = detector.unmold_detections(np.asarray(want), np.asarray(planes), *[(64, 64, 3)] * 2, (0, 0, 64, 64))
        np.testing.assert_array_equal(got["class_ids"], expected[1])
        np.testing.assert_allclose(got["scores"], expected[2], atol=1e-4)
        assert np.abs(got["rois"] - expected[0]).max(initial=0) <= 1
        assert (got["masks"] != expected[3]).mean() < 1e-2


def test_a_model_of_ones_own_is_asked_as_keras_does(detector, monkeypatch):
    wrapped = keras.Model(detector.keras_model.inputs, detector.keras_model.outputs)
    (want,) = detector.detect([tiny.photo(64, 64)])
    monkeypatch.setattr(detector, "keras_model", wrapped)
    (got,) = detector.detect([tiny.photo(64, 64)])
    np.testing.assert_allclose(got["scores"], want["scores"], atol=1e-4)
    assert np.abs(got["rois"] - want["rois"]).max(initial=0) <= 1


@pytest.fixture
def fresh(detector):
    """The detector as before its first detection; weights that a test breaks are whole again afterwards."""
    before, detector._detector_of = detector.keras_model.get_weights(), None
    yield detector
    detector.keras_model.set_weights(before)
    detector._detector_of = None


def spoil(model, *names):
    """Has the weights of each of these layers be no numbers."""
    for variable in model.weights:
        if variable.path.split("/")[-2] in names:
            variable.assign(np.full(variable.shape, np.nan))


@pytest.mark.parametrize("name", ["conv1", "bn3a_branch2a", "rpn_conv_shared", "mrcnn_class_logits", "mrcnn_mask"])
def test_weights_that_are_no_numbers_are_named(fresh, name):
    molded, metas, _ = fresh.mold_inputs([tiny.photo(64, 64)])
    spoil(fresh.keras_model, name)
    message = f"the weights of {name} hold NaN or infinity. Load the weights again"
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            fresh.detect([tiny.photo(64, 64)])
        with pytest.raises(ValueError, match=message):
            fresh.detect_molded(molded, metas)


def test_weights_that_break_between_detections(fresh):
    """TensorFlow's ReLU may make 0 of NaN; the RPN's deltas end in an error of its own."""
    for name in ("mrcnn_class_logits", "rpn_bbox_pred"):
        before = fresh.keras_model.get_weights()
        assert len(fresh.detect([tiny.photo(64, 64)])[0]["rois"])
        spoil(fresh.keras_model, name)
        with pytest.raises(ValueError, match=f"the weights of {name} hold NaN"):
            fresh.detect([tiny.photo(64, 64)])
        fresh.keras_model.set_weights(before)


def test_weights_of_a_model_of_ones_own(fresh, monkeypatch):
    model = fresh.keras_model
    monkeypatch.setattr(fresh, "keras_model", keras.Model(model.inputs, model.outputs))
    assert len(fresh.detect([tiny.photo(64, 64)])[0]["rois"])
    spoil(model, "conv1", "mrcnn_class_logits", *(f"mrcnn_mask_conv{i}" for i in (1, 2, 3, 4)), "mrcnn_mask")
    with pytest.raises(ValueError, match="of conv1, .* and 2 more hold NaN"):
        fresh.detect([tiny.photo(64, 64)])


def test_finding_nothing_costs_no_look_at_the_weights(fresh, monkeypatch):
    looks, look = [], inference.check_weights
    monkeypatch.setattr(inference, "check_weights", lambda model: looks.append(model) or look(model))
    fresh.keras_model.get_layer("mrcnn_class_logits").bias.assign([1e6, 0, 0, 0])  # all is background
    for _ in range(3):
        assert not len(fresh.detect([tiny.photo(64, 64)])[0]["rois"])
    assert len(looks) == 1


@on_tensorflow
@pytest.mark.slow
def test_memory_does_not_grow(detector):
    psutil = pytest.importorskip("psutil")
    process, sides = psutil.Process(), (64, 90, 128, 150)
    images = [tiny.photo(h, w) for h in sides for w in sides]
    for image in images * 2:
        detector.detect([image])
    before = process.memory_info().rss
    for number in range(200):
        detector.detect([images[number % len(images)]])
    assert process.memory_info().rss - before < 100e6


SIZES = ((64, 64), (70, 100), (50, 40), (128, 128), (100, 70), (33, 190))
KINDS = ("full", "box", "rle") if importlib.util.find_spec("pycocotools") else ("full", "box")
CALLS = [([tiny.photo(*SIZES[(n + k) % len(SIZES)], seed=n) for k in range(1 + n % 3)], KINDS[n // 3 % len(KINDS)])
         for n in range(12)]  # fmt: skip


def in_threads(detector, rounds, count=8):
    """[calls] results of CALLS from many threads that start at once, all of them `rounds` times."""
    start = threading.Barrier(count)
    work = [call for _ in range(rounds) for call in CALLS]

    def run(first):
        start.wait(60)
        return [(n, detector.detect(work[n][0], masks=work[n][1])) for n in range(first, len(work), count)]

    with ThreadPoolExecutor(count) as pool:
        results = dict(result for found in pool.map(run, range(count)) for result in found)
    return [results[n] for n in range(len(work))]


def assert_same(got, want, exactly=True):
    """That two results of `detect` agree, bit by bit or as far as other graphs of the same network round."""
    for ours, alone in zip(got, want, strict=True):
        np.testing.assert_array_equal(ours["class_ids"], alone["class_ids"])
        if not exactly:
            np.testing.assert_allclose(ours["scores"], alone["scores"], atol=1e-4)
            np.testing.assert_allclose(ours["rois"], alone["rois"], atol=1)
            continue
        for key in ("scores", "rois"):
            np.testing.assert_array_equal(ours[key], alone[key])
        assert len(ours["masks"]) == len(alone["masks"])
        for mask, other in zip(ours["masks"], alone["masks"], strict=True):
            if isinstance(mask, dict):  # run-length encoded
                assert mask == other
            else:
                np.testing.assert_array_equal(mask, other)


def test_eight_threads_get_what_one_gets(detector):
    """Photos of many sizes, several to a call, masks of all kinds: in the order of the calls, bit by bit."""
    for _ in range(7):  # by then all graphs are there, those of shapes that come often too
        want = [detector.detect(images, masks=masks) for images, masks in CALLS]
    assert sum(len(result["rois"]) for results in want for result in results) > 20
    for n, got in enumerate(in_threads(detector, rounds=4)):
        assert_same(got, want[n % len(CALLS)])


def test_eight_threads_make_a_new_model_ready(detector):
    """The first calls of all come at once, when the network is not compiled and no anchors are kept."""
    fresh = MaskRCNN("inference", detector.config, detector.model_dir)
    fresh.keras_model.set_weights(detector.keras_model.get_weights())
    got = in_threads(fresh, rounds=1)
    for results, (images, masks) in zip(got, CALLS, strict=True):
        assert_same(results, detector.detect(images, masks=masks), exactly=False)


def test_detect_says_what_goes_in(detector, capsys):
    detector.detect([tiny.photo(64, 64)], verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["Processing", "image", "molded_images", "image_metas", "anchors"]


def test_detecting_molded_images(detector):
    images, metas, windows = detector.mold_inputs([tiny.photo(64, 64)] * 3)
    np.testing.assert_array_equal(windows, [[0, 0, 64, 64]] * 3)
    molded, plain = detector.detect_molded(images, metas), detector.detect([tiny.photo(64, 64)] * 3)
    assert len(molded) == 3
    with pytest.raises(ValueError, match=r"molded_images\[0\].*received \(60, 64, 3\)"):
        detector.detect_molded(images[:, :60], metas)
    np.testing.assert_array_equal(molded[1]["rois"], plain[1]["rois"])
    rows, masks = np.zeros((2, 6)), np.zeros((2, 28, 28, 4))
    assert detector.unmold_detections(rows, masks, (64, 64, 3), (64, 64, 3), (0, 0, 64, 64))[3].shape == (64, 64, 0)


def test_anchors_are_kept_by_shape(detector):
    first = detector.get_anchors((64, 64, 3))
    assert first is detector.get_anchors([64, 64, 3]) is detector._anchor_cache[64, 64, 3]
    np.testing.assert_array_equal(denorm_boxes(first, (64, 64)), np.around(detector.anchors).astype(int))
    wide = detector.get_anchors((64, 128, 3))
    assert first.dtype == np.float32 and len(detector.anchors) == len(wide) > len(first)
    for side in range(1, 30):
        detector.get_anchors((64 * side, 64, 3))
    assert len(detector._anchor_cache) <= 16
    for shape in ((0, 0, 3), (64, -64, 3), (64,)):
        with pytest.raises(ValueError, match=r"image_shape must be \(height, width, channels\) .* received \("):
            detector.get_anchors(shape)


def test_looks_inside(detector):
    pillar = detector.keras_model.get_layer("ROI").output
    refined = detector.ancestor(pillar, "ROI/refined_anchors:0")
    got = detector.run_graph([tiny.photo(64, 64)] * 2, [("refined", refined), ("P2", "fpn_p2")])
    assert list(got) == ["refined", "P2"] and got["P2"].shape == (2, 16, 16, 8)
    molded, metas, _ = detector.mold_inputs([tiny.photo(64, 64)] * 2)
    again = detector.run_graph(molded, [("refined", refined)], image_metas=metas)
    np.testing.assert_allclose(again["refined"], got["refined"], rtol=1e-5, atol=1e-6)
    assert detector.ancestor(pillar, "ROI/nothing") is None


def test_running_out_of_memory_says_what_helps(detector, monkeypatch):
    def fail(*inputs):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr("mrcnn.network.detector.Detector.__call__", fail)
    with pytest.raises(MemoryError, match="IMAGES_PER_GPU"):
        detector.detect([tiny.photo(64, 64)])
