"""Evaluation of whole data sets: what is read and kept, errors, and a tiny network."""

import json
import math
import pickle
import sys
import weakref

import numpy as np
import pytest
import tiny
from drawn import KINDS, Drawn, answers, counts, echo, evaluate, noisy, nothing, result, several, truth

from mrcnn.engine import evaluation
from mrcnn.engine.mask_rcnn import MaskRCNN
from mrcnn.engine.scoring import encode_mask

SEVERAL = several()


def test_parts_can_be_collected_elsewhere_and_merged():
    truths, results = noisy(5)
    for seed in (6, 7, 8):
        truths, results = truths + noisy(seed)[0], results + noisy(seed)[1]
    dataset, detect = Drawn(*truths), answers(*results)
    want = evaluate(detect, dataset, batch_size=3)
    assert 0 < want["segm"]["AP"] < 1 and want["images"] > 6
    order = np.random.default_rng(0).permutation(len(truths)).tolist()
    whole = evaluation.Findings()
    for part in (order[:2], order[2:3], order[3:]):
        whole.add(pickle.loads(pickle.dumps(evaluation.collect(detect, dataset, part, batch_size=2))))
    got = evaluation.score_findings(whole, dataset, verbose=0)
    for kind in KINDS:
        assert repr(got[kind]) == repr(want[kind])  # bit by bit, NaN too
    assert json.loads(json.dumps(whole.rows)) == whole.rows


def test_each_image_is_read_once_and_batches_are_full():
    dataset, sizes = Drawn(*[truth((1, 0, 0, 5, 5))] * 7), []

    def detect(images):
        sizes.append(len(images))
        return nothing(images)

    evaluate(detect, dataset, batch_size=3)
    assert sizes == [3, 3, 1]
    assert dataset.loaded == [(what, number) for number in range(7) for what in ("image", "mask")]


def test_masks_live_no_longer_than_their_batch():
    alive, most = [], []

    def watched(masks):
        alive.append(weakref.ref(masks))
        return masks

    class Watched(Drawn):
        def load_mask(self, image_id):
            masks, class_ids = super().load_mask(image_id)
            return watched(masks.copy()), class_ids

    def detect(images):
        most.append(sum(reference() is not None for reference in alive))
        found = [result(*truth((1, 0, 0, 9, 9))) for _ in images]
        for one in found:
            watched(one["masks"])
        return found

    evaluate(detect, Watched(*[truth((1, 0, 0, 9, 9))] * 12), batch_size=2)
    assert len(alive) == 24 and most == [0] * 6


def test_boxes_alone_need_no_masks():
    def detect(images):
        return [{name: value for name, value in found.items() if name != "masks"} for found in echo(SEVERAL)(images)]

    got = evaluate(detect, SEVERAL, eval_type="bbox")
    assert got["bbox"]["AP"] == pytest.approx(1) and "segm" not in got
    assert "bbox" not in evaluate(echo(SEVERAL), SEVERAL, eval_type="segm")


def test_own_annotations_replace_masks():
    class Annotated(Drawn):
        def coco_annotations(self, image_id):
            box = [[2.5, 2, 12.5, 2, 12.5, 12, 2.5, 12]]
            crowd = {"size": [64, 80], "counts": counts(truth((1, 30, 30, 60, 60))[0][:, :, 0])}
            given = [{"category_id": 1, "segmentation": box, "bbox": [2.5, 2, 10, 10], "area": 100.0, "iscrowd": 0},
                     {"category_id": 1, "segmentation": crowd, "iscrowd": 1}]
            return [given, [], None][image_id]

    dataset = Annotated(truth((3, 0, 0, 5, 5)), truth((3, 0, 0, 5, 5)), truth((2, 0, 0, 5, 5)))
    detect = answers(result(*truth((1, 2, 2, 12, 12), (1, 40, 40, 50, 50)), [0.5, 0.9]), result(*truth()),
                     result(*truth((2, 0, 0, 5, 5))))  # fmt: skip
    got = evaluate(detect, dataset)
    assert got["objects"] == 2 and ("mask", 0) not in dataset.loaded and ("mask", 2) in dataset.loaded
    assert got["bbox"]["per_class"]["dot"]["AP50"] == pytest.approx(1)  # the crowd takes the better detection
    assert got["bbox"]["per_class"]["dot"]["AP"] == pytest.approx(0.9)  # 9.5 of 10.5 pixels are common
    assert math.isnan(got["bbox"]["per_class"]["ring"]["AP"])


def test_classes_that_an_image_says_nothing_of_do_not_count():
    """Photos of two sources: that one has labels for dots does not mean that it shows no balloons."""
    dataset = Drawn(truth((1, 0, 0, 9, 9)), truth((1, 0, 0, 9, 9)))
    dataset.add_class("other", 1, "balloon")
    dataset.prepare()
    both = result(*truth((4, 20, 20, 40, 40), (1, 0, 0, 9, 9)), [0.9, 0.8])
    got = evaluate(answers(both, both), dataset)
    assert got["detections"] == 2 and got["segm"]["AP"] == pytest.approx(1)
    assert math.isnan(got["segm"]["per_class"]["balloon"]["AP"])
    dataset.image_info[1] |= {"source": "other", "truth": truth((4, 20, 20, 40, 40), (1, 0, 0, 9, 9))}
    assert evaluate(answers(both, both), dataset)["detections"] == 3


def test_ties_fall_in_the_order_of_the_images_own_numbers():
    """As in COCO's own evaluation, which does not know our indices."""
    results = [result(*truth((1, 0, 0, 9, 9))), result(*truth((1, 50, 50, 60, 60)))]
    APs = []
    for ids in ([7, 3], [3, 7]):
        dataset = Drawn(truth((1, 0, 0, 9, 9)), truth((1, 0, 0, 9, 9)))
        for info, own in zip(dataset.image_info, ids):
            info["id"] = own
        APs.append(evaluate(answers(*results), dataset)["segm"]["AP"])
    assert APs == [pytest.approx(0.5 * 51 / 101), pytest.approx(51 / 101)]


# ---- which images


def test_limit_and_image_ids():
    dataset = Drawn(*[truth((1, 0, 0, 9, 9))] * 6)
    assert evaluate(nothing, dataset, limit=4)["images"] == 4
    assert evaluate(nothing, dataset, limit=100)["images"] == 6
    dataset.loaded.clear()
    assert evaluate(nothing, dataset, image_ids=np.array([5, 0, 3]), limit=2)["images"] == 2
    assert [number for what, number in dataset.loaded if what == "image"] == [5, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_ids": [0, 5]}, "unknown image id 5: ids are indices from 0 to 4"),
        ({"image_ids": ["no. 1"]}, "unknown image id 'no. 1'.*image_from_source_map"),
        ({"image_ids": [-1]}, "unknown image id -1"),
        ({"image_ids": [2, 1, 2]}, "image 2 more than once"),
        ({"image_ids": []}, "image_ids is empty"),
        ({"limit": -1}, "limit must be a whole number.*-1"),
        ({"limit": 2.5}, "limit must be"),
        ({"eval_type": "mask"}, "eval_type must be one of bbox, segm, both; received 'mask'"),
        ({"max_detections": 50}, "max_detections must be 100 or more; received 50"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
    ],
)
def test_wrong_arguments_are_refused_before_work_begins(arguments, message):
    SEVERAL.loaded.clear()
    with pytest.raises(ValueError, match=message):
        evaluate(nothing, SEVERAL, **arguments)
    assert SEVERAL.loaded == []


def test_data_sets_must_be_ready():
    with pytest.raises(ValueError, match="has no images"):
        evaluate(nothing, Drawn())
    grown = Drawn(truth())
    grown.add_image("drawn", "late", None)
    with pytest.raises(ValueError, match="not prepared"):
        evaluate(nothing, grown)
    with pytest.raises(ValueError, match="must be a mrcnn.utils.Dataset"):
        evaluate(nothing, ["photo.jpg"])


def test_pycocotools_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    SEVERAL.loaded.clear()
    with pytest.raises(ImportError, match="pip install pycocotools"):
        evaluate(nothing, SEVERAL)
    assert SEVERAL.loaded == []


# ---- what goes wrong


class Broken(Drawn):
    """The images named in `bad` cannot be read."""

    bad = ()

    def load_image(self, image_id):
        if image_id in self.bad:
            raise OSError("the disk is on fire")
        return super().load_image(image_id)


@pytest.fixture
def broken():
    return Broken(*[truth((1, 0, 0, 9, 9))] * 40)


def test_unreadable_images_are_named_and_left_out(broken, caplog, capsys):
    broken.bad, sizes = (0, 3), []

    def detect(images):
        sizes.append(len(images))
        return echo(broken)(images)

    got = evaluate(detect, broken, batch_size=2, verbose=1)
    assert got["images"] == got["objects"] == 38 and got["segm"]["AP"] == pytest.approx(1) and sizes == [2] * 19
    name = "image 'no. 3' of source 'drawn' (3.png)"
    assert got["left_out"][name] == "OSError: the disk is on fire" and len(got["left_out"]) == 2
    printed = capsys.readouterr().out
    assert "Evaluating: 40 of 40 images" in printed and "2 images were left out" in printed and name in printed
    assert name in caplog.text


def test_too_many_unreadable_images_stop(broken):
    broken.bad = range(1, 8)
    with pytest.raises(ValueError, match=r"3 of 40 images(.|\n)*no\. 1(.|\n)*no\. 3"):
        evaluate(nothing, broken)
    with pytest.raises(ValueError, match=r"none of the 1 images could be used(.|\n)*no\. 5(.|\n)*disk is on fire"):
        evaluate(nothing, broken, image_ids=[5])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ((np.zeros((5, 5, 1), bool), np.array([1])), "masks of the image's height and width"),
        ((np.ones((64, 80, 1), bool), np.array([1, 2])), "one class id per mask"),
    ],
)
def test_masks_that_do_not_fit_are_left_out(wrong, message):
    dataset = Drawn(truth(), truth((1, 0, 0, 9, 9)))
    dataset.load_image = lambda image_id: np.full((64, 80, 3), image_id, np.uint8)
    dataset.image_info[0]["truth"] = wrong
    got = evaluate(nothing, dataset)
    assert got["images"] == 1 and message in got["left_out"]["image 'no. 0' of source 'drawn' (0.png)"]


def test_unknown_classes_stop():
    with pytest.raises(ValueError, match=r"no\. 0.*load_mask returned class id 4"):
        evaluate(nothing, Drawn(truth((4, 0, 0, 9, 9))))


def test_masks_without_a_pixel_are_no_objects():
    dataset = Drawn(truth((1, 5, 5, 5, 5), (1, 0, 0, 9, 9)))
    with pytest.warns(UserWarning, match="1 objects in 1 images"):
        got = evaluate(answers(result(*truth((1, 0, 0, 9, 9)))), dataset)
    assert got["objects"] == 1 and got["segm"]["AP"] == pytest.approx(1)


def test_annotations_that_do_not_fit():
    dataset = Drawn(truth(), truth())
    given = [{"category_id": 1, "segmentation": {"size": [6, 7], "counts": [42]}}]
    dataset.coco_annotations = lambda image_id: None if image_id else given
    (problem,) = evaluate(nothing, dataset)["left_out"].values()
    assert "an annotation is for an image of (height, width) [6, 7], but the image has [64, 80]" in problem
    given[0]["category_id"] = 9
    with pytest.raises(ValueError, match=r"no\. 0.*coco_annotations gives class id 9; ids go from 1 to 3"):
        evaluate(nothing, dataset)


GOOD = result(*truth((1, 0, 0, 9, 9)))


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "a result per image; it returned 0 for 1"),
        ([GOOD | {"scores": []}], "no. 0.*1 rois, 1 class_ids and 0 scores"),
        ([GOOD | {"class_ids": [4]}], "no. 0.*class ids from 4 to 4; those of the data set go from 1 to 3"),
        ([GOOD | {"masks": np.zeros((5, 5, 1))}], r"no. 0.*\(64, 80, 1\).*detect returned \(5, 5, 1\)"),
        ([GOOD | {"masks": [{"size": [5, 5], "counts": "9"}]}], r"no. 0.*detect returned RLE of \[\(5, 5\)\]"),
    ],
)
def test_results_must_fit(results, message):
    with pytest.raises(ValueError, match=message):
        evaluate(lambda images: results, Drawn(truth()))


def test_masks_may_be_compressed():
    def compressed(images):
        return [found | {"masks": [encode_mask(found["masks"][..., n]) for n in range(len(found["rois"]))]}
                for found in echo(SEVERAL)(images)]  # fmt: skip

    want, got = (evaluate(detect, SEVERAL)["segm"] for detect in (echo(SEVERAL), compressed))
    assert got == want and got["AP"] > 0.9


def test_an_error_of_the_model_names_the_images():
    def detect(images):
        raise ValueError("images[1]: sides must be multiples of 64")

    with pytest.raises(ValueError, match=r"multiples of 64.*images\[1\] is image 'no\. 1' of source 'drawn'"):
        evaluate(detect, SEVERAL, batch_size=2)


def test_silence(capsys):
    evaluate(echo(SEVERAL), SEVERAL)
    assert capsys.readouterr() == ("", "")


# ---- the model


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return MaskRCNN("inference", tiny.config(), str(tmp_path_factory.mktemp("detector")))


def test_a_model_evaluates(detector, capsys):
    squares, found, detect = tiny.Squares(5), [], detector.detect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector, "detect", lambda images: found.append(detect(images)) or found[-1])
        got = detector.evaluate(squares, limit=3)
    assert [len(batch) for batch in found] == [2, 1]  # BATCH_SIZE
    assert got["images"] == 3 and got["objects"] == 6
    assert got["detections"] == sum(len(one["rois"]) for batch in found for one in batch) > 0
    assert 0 <= got["segm"]["AP50"] <= 1 and "AR_100" in got["bbox"]
    printed = capsys.readouterr().out
    assert "CONFIDENCE" not in printed and "3 images, 6 objects" in printed
    assert detector.evaluate(squares, [4, 1], eval_type="bbox", verbose=0)["images"] == 2


def test_a_hint_at_confidence(model_dir, capsys):
    model = MaskRCNN("inference", tiny.config(DETECTION_MIN_CONFIDENCE=0.7, DETECTION_MAX_INSTANCES=120), model_dir)
    assert "AR_120" in model.evaluate(tiny.Squares(1))["segm"]
    assert capsys.readouterr().out.startswith("DETECTION_MIN_CONFIDENCE = 0.7 keeps")


def test_a_model_refuses_at_once(detector, model_dir, monkeypatch):
    monkeypatch.setattr(detector, "detect", None)
    with pytest.raises(ValueError, match="NUM_CLASSES is 4, but the data set has 2"):
        detector.evaluate(Drawn(truth(), classes=("one",)))
    with pytest.raises(ValueError, match="unknown image id 9"):
        detector.evaluate(tiny.Squares(2), [9])
    with pytest.raises(ValueError, match='needs a model of mode "inference"'):
        MaskRCNN("training", tiny.config(), model_dir).evaluate(tiny.Squares(2))


def test_grey_images_become_what_the_model_takes(detector):
    class Grey(tiny.Squares):
        def load_image(self, image_id):
            return super().load_image(image_id)[:, :, 0]

    assert detector.evaluate(Grey(2), verbose=0)["left_out"] == {}
