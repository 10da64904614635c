"""The COCO sample on photos of COCO 2017."""

import json
import subprocess
import sys

import numpy as np
import pytest
import seeded
from coco_folders import coco

from mrcnn import model as modellib
from mrcnn import utils
from mrcnn.engine import evaluation

KINDS = ("bbox", "segm")


@pytest.fixture(scope="module")
def val(data_dir):
    """The validation images, and their annotations for scoring."""
    dataset = coco.CocoDataset()
    annotations = dataset.load_coco(data_dir / "coco", "val", "2017", return_coco=True)
    dataset.prepare()
    return dataset, annotations


class Detector:
    """In a model's place: it answers with the masks of the images, in order; `spoil` changes each answer."""

    def __init__(self, dataset, spoil=lambda result, draw: result):
        self.dataset, self.spoil, self.seen = dataset, spoil, 0

    def detect(self, images, verbose=0):
        results = []
        for image in images:
            masks, class_ids = self.dataset.load_mask(self.seen)
            assert image.shape[:2] == masks.shape[:2]
            masks, class_ids = masks[..., class_ids > 0], class_ids[class_ids > 0]
            result = {"rois": utils.extract_bboxes(masks), "class_ids": class_ids, "masks": masks,
                      "scores": np.ones(len(class_ids), np.float32)}  # fmt: skip
            results.append(self.spoil(result, np.random.default_rng(self.seen)))
            self.seen += 1
        return results


def spoil(result, draw):
    """Shifts, wrong classes, lost objects and scores of one digit, so that many are equal."""
    kept = draw.random(len(result["class_ids"])) < 0.8
    shift = draw.integers(0, 6, 2)
    masks = np.roll(result["masks"][..., kept], shift, axis=(0, 1))
    class_ids = np.where(draw.random(kept.sum()) < 0.9, result["class_ids"][kept], 1)
    return {"rois": utils.extract_bboxes(masks), "class_ids": class_ids, "masks": masks,
            "scores": draw.random(kept.sum()).round(1).astype(np.float32)}  # fmt: skip


def test_the_whole_of_the_data_is_read(data_dir, val):
    train = coco.CocoDataset()
    train.load_coco(data_dir / "coco", "train", "2017")
    train.prepare()
    assert (train.num_images, val[0].num_images, train.num_classes) == (80, 79, 81)
    assert sum(len(info["annotations"]) for info in train.image_info) == 739
    crowds = [sum(a["iscrowd"] for info in d.image_info for a in info["annotations"]) for d in (train, val[0])]
    assert crowds == [8, 5]
    near = []
    for dataset in (train, val[0]):
        for image_id in dataset.image_ids:
            masks, class_ids = dataset.load_mask(image_id)
            assert masks.any(axis=(0, 1)).all() and len(class_ids) == masks.shape[2]
            areas = [a["area"] for a in dataset.image_info[image_id]["annotations"]]
            if len(areas) == len(class_ids):  # else one covers no pixel
                near.extend(np.isclose(masks.sum(axis=(0, 1)), areas, rtol=0.05, atol=30))
    assert len(near) > 1200 and np.mean(near) > 0.98  # COCO counts twice where parts of an object overlap


def test_the_truth_itself_scores_one(val):
    detector = Detector(val[0])
    result = coco.evaluate_coco(detector, *val, "both", verbose=0)
    assert detector.seen == result["images"] == 79 and not result["left_out"]
    assert result["segm"]["AP"] > 0.995 and result["bbox"]["AP"] >= 0.96


def test_evaluation_of_the_data_set_and_of_coco_agree(val):
    ours = evaluation.evaluate(Detector(val[0], spoil).detect, val[0], batch_size=4, verbose=0)
    theirs = coco.evaluate_coco(Detector(val[0], spoil), *val, "both", verbose=0)
    for kind in KINDS:
        assert 0.05 < theirs[kind]["AP"] < 0.9
        for name, number in theirs[kind].items():
            if name == "per_class":
                tables = ([list(row.values()) for row in table.values()] for table in (number, ours[kind][name]))
                np.testing.assert_allclose(*map(np.array, tables), atol=1e-6)
            else:
                assert ours[kind][name] == pytest.approx(number, abs=1e-6, nan_ok=True), (kind, name)


# What any user of pycocotools would do with the file; not a line of this package.
SCORING = """
import json, sys
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
truth = COCO(sys.argv[1])
found, ids = truth.loadRes(sys.argv[2]), json.loads(sys.argv[3])
figures = {}
for kind in ("bbox", "segm"):
    evaluation = COCOeval(truth, found, kind)
    evaluation.params.imgIds = ids
    evaluation.evaluate(); evaluation.accumulate(); evaluation.summarize()
    figures[kind] = evaluation.stats.tolist()
print(json.dumps(figures))
"""
ORDER = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium",
         "AR_large")  # fmt: skip


def test_another_process_scores_the_file_to_the_same_numbers(data_dir, val, tmp_path):
    path = tmp_path / "results.json"
    result = coco.evaluate_coco(Detector(val[0], spoil), *val, "both", limit=40, results_path=path, verbose=0)
    ids = json.dumps([info["id"] for info in val[0].image_info[:40]])
    truth = data_dir / "coco" / "annotations" / "instances_val2017.json"
    done = subprocess.run([sys.executable, "-c", SCORING, truth, path, ids], capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    for kind in KINDS:
        ours = np.nan_to_num([result[kind][name] for name in ORDER], nan=-1)
        np.testing.assert_allclose(ours, figures[kind], atol=1e-9)
    assert result["segm"]["AP"] > 0.1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*smaller than a pixel")  # at 256 pixels
def test_trains_and_evaluates_a_resnet(data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(coco.CocoConfig, "VALIDATION_STEPS", 2)
    config = type("Small", (coco.CocoInferenceConfig,), {"BACKBONE": "resnet50", "IMAGE_MIN_DIM": 256,
                                                          "IMAGE_MAX_DIM": 256})()  # fmt: skip
    model = modellib.MaskRCNN("inference", config, str(tmp_path))
    seeded.fill(model.keras_model)
    weights, output = tmp_path / "seeded.h5", tmp_path / "output"
    model.keras_model.save_weights(str(weights))
    common = ["--dataset", str(data_dir / "coco"), "--year=2017", "--backbone=resnet50", "--image-size=256",
              "--logs", str(tmp_path / "logs")]  # fmt: skip
    coco.main(["train", *common, f"--model={weights}", "--epochs=1", "--steps=10", "--batch-size=1", "--seed=1"])
    (checkpoint,) = tmp_path.glob("logs/coco*/mask_rcnn_coco_0001.h5")
    log = np.genfromtxt(checkpoint.with_name("log.csv"), delimiter=",", names=True)
    assert np.isfinite(log["loss"]) and np.isfinite(log["val_loss"])
    coco.main(["evaluate", *common, f"--model={weights}", "--limit=20", f"--output={output}"])
    metrics, rows = (json.loads((output / f"{name}.json").read_text()) for name in ("metrics", "results"))
    assert metrics["images"] == 20 and len(rows) == metrics["detections"] > 0
    assert capsys.readouterr().out.count("Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all") == 2
