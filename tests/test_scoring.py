"""The numbers of evaluation: by hand, by pycocotools, and in special cases."""

import contextlib
import json
import math

import hypothesis
import numpy as np
import pytest
from drawn import KINDS, Drawn, answers, counts, echo, evaluate, noisy, nothing, result, several, truth
from hypothesis import strategies as st

from mrcnn.engine import scoring
from mrcnn.geometry.masks import extract_bboxes

SEVERAL = several()


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
def test_the_truth_itself_is_perfect(batch_size):
    got = evaluate(echo(SEVERAL), SEVERAL, batch_size=batch_size)
    assert got["images"] == 5 and got["objects"] == got["detections"] == 5 and got["left_out"] == {}
    for kind in KINDS:
        for name in ("AP", "AP75", "AR_100", "AP_small"):
            assert got[kind][name] == pytest.approx(1)
        assert list(got[kind]["per_class"]) == ["dot", "bar", "ring"]
        assert got[kind]["per_class"]["bar"] == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1, "AR": 1, "objects": 2})
        ring = got[kind]["per_class"]["ring"]  # a crowd is no object
        assert ring["objects"] == 0 and math.isnan(ring["AP"]) and math.isnan(got[kind]["AP_large"])
    assert 0 <= got["seconds_detecting"] <= got["seconds"]


def test_more_than_100_objects():
    many = Drawn(truth(*((1, y, x, y + 2, x + 2) for y in range(0, 60, 4) for x in range(0, 40, 4))))
    got = evaluate(echo(many), many, max_detections=400)["segm"]
    assert got["AP"] == got["AR_400"] == got["AR_small"] == got["per_class"]["dot"]["AR"] == pytest.approx(1)
    assert got["AR_100"] == pytest.approx(100 / 150) and got["AR_1"] == pytest.approx(1 / 150)
    assert evaluate(echo(many), many)["segm"]["AP"] == pytest.approx(67 / 101)  # recalls 0, 0.01 ... 0.66


def test_nothing_detected_gives_zeros():
    got = evaluate(nothing, SEVERAL)
    assert got["detections"] == 0
    for kind in KINDS:
        assert got[kind]["AP"] == got[kind]["AP50"] == got[kind]["AR_100"] == got[kind]["AR_small"] == 0
        assert got[kind]["per_class"]["dot"]["AP"] == 0 and math.isnan(got[kind]["per_class"]["ring"]["AP"])


def test_without_objects_there_is_no_number():
    empty = Drawn(truth(), truth((-1, 0, 0, 9, 9)))
    for detect in (nothing, answers(result(*truth((1, 2, 2, 9, 9))), result(*truth()))):
        got = evaluate(detect, empty)
        assert got["objects"] == 0
        numbers = [value for kind in KINDS for name, value in got[kind].items() if name != "per_class"]
        assert len(numbers) == 24 and all(map(math.isnan, numbers))


def test_precision_by_hand():
    """Two objects; one is found, and a detection besides is wrong."""
    dataset = Drawn(truth((1, 0, 0, 10, 10), (1, 30, 30, 40, 40)))
    masks, class_ids = truth((1, 0, 0, 10, 10), (1, 50, 50, 60, 60))
    right_first = evaluate(answers(result(masks, class_ids, [0.9, 0.8])), dataset)
    wrong_first = evaluate(answers(result(masks, class_ids, [0.8, 0.9])), dataset)
    for kind in KINDS:  # 51 of the 101 recalls are reached
        assert right_first[kind]["AP"] == right_first[kind]["AP50"] == pytest.approx(51 / 101)
        assert wrong_first[kind]["AP"] == pytest.approx(0.5 * 51 / 101)
        assert right_first[kind]["AR_100"] == 0.5 and wrong_first[kind]["AR_1"] == 0


def test_thresholds_by_hand():
    """A mask that covers 63 % of the object, and no more, counts at 0.5, 0.55 and 0.6."""
    dataset = Drawn(truth((1, 0, 0, 10, 10)))
    got = evaluate(answers(result(*truth((1, 0, 0, 9, 7)))), dataset)
    for kind in KINDS:
        assert [got[kind][name] for name in ("AP", "AP50", "AP75")] == pytest.approx([0.3, 1, 0])


def test_boxes_and_masks_are_different_things():
    masks, class_ids = truth((1, 0, 0, 20, 20))
    diagonal = masks & np.eye(64, 80, dtype=bool)[..., None]
    got = evaluate(answers(result(diagonal, class_ids)), Drawn((masks, class_ids)))
    assert got["bbox"]["AP"] == pytest.approx(1) and got["segm"]["AP"] == 0


def test_sizes():
    """32 x 32 and 96 x 96 pixels are the limits between small, medium and large."""
    sizes = [(1, 0, 0, 20, 20), (1, 0, 50, 50, 100), (1, 60, 60, 180, 180)]
    dataset = Drawn(truth(*sizes, shape=(200, 200)))
    names = ("small", "medium", "large")
    for found, size in zip(names, sizes):
        got = evaluate(answers(result(*truth(size, shape=(200, 200)))), dataset)
        for kind in KINDS:
            wanted = {f"AP_{name}": float(name == found) for name in names}
            assert {name: got[kind][name] for name in wanted} == pytest.approx(wanted)
            assert got[kind][f"AR_{found}"] == 1


def test_detections_in_a_crowd_are_not_wrong():
    objects, inside = [(1, 0, 0, 10, 10)], [(1, 30, 30, 40, 40), (1, 45, 45, 55, 55)]
    detect = answers(result(*truth(*inside, *objects), [0.9, 0.8, 0.7]))
    assert evaluate(detect, Drawn(truth(*objects, (-1, 20, 20, 60, 60))))["segm"]["AP"] == pytest.approx(1)
    assert evaluate(detect, Drawn(truth(*objects, (-2, 20, 20, 60, 60))))["segm"]["AP"] == pytest.approx(1 / 3)


def by_hand(truths, results, folder):
    """The 12 numbers of pycocotools for files that are written here, as lists by kind."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images, annotations, rows = [], [], []
    for number, ((masks, class_ids), found) in enumerate(zip(truths, results), start=1):
        images.append({"id": number, "height": masks.shape[0], "width": masks.shape[1]})
        for n, class_id in enumerate(class_ids.tolist()):
            rows_, columns = np.nonzero(masks[:, :, n])
            x, y = int(columns.min()), int(rows_.min())
            annotations.append({
                "id": 100 + len(annotations), "image_id": number, "category_id": abs(class_id) * 10,
                "iscrowd": int(class_id < 0), "area": int(masks[:, :, n].sum()),
                "bbox": [x, y, int(columns.max()) - x + 1, int(rows_.max()) - y + 1],
                "segmentation": {"size": list(masks.shape[:2]), "counts": counts(masks[:, :, n])},
            })  # fmt: skip
        for (y1, x1, y2, x2), class_id, score in zip(found["rois"].tolist(), found["class_ids"], found["scores"]):
            mask = truth((1, y1, x1, y2, x2), shape=masks.shape[:2])[0]
            mask = {"size": list(masks.shape[:2]), "counts": counts(mask)}
            rows.append({"image_id": number, "category_id": int(class_id) * 10, "bbox": [x1, y1, x2 - x1, y2 - y1],
                         "score": float(score), "segmentation": mask})  # fmt: skip
    categories = [{"id": number} for number in (10, 20, 30)]
    (folder / "truth.json").write_text(json.dumps({"images": images, "annotations": annotations,
                                                   "categories": categories}))
    coco = COCO(folder / "truth.json")
    stats = {}
    for kind in KINDS:
        evaluated = COCOeval(coco, coco.loadRes(json.loads(json.dumps(rows))), kind)
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
        stats[kind] = evaluated.stats.tolist()
    return stats


@hypothesis.settings(max_examples=15)
@hypothesis.given(st.integers(0, 10**6))
def test_the_numbers_are_those_of_pycocotools(tmp_path_factory, seed):
    truths, results = noisy(seed)
    hypothesis.assume(any(len(found["rois"]) for found in results))
    got = evaluate(answers(*results), Drawn(*truths), batch_size=2)
    for kind, stats in by_hand(truths, results, tmp_path_factory.mktemp("json")).items():
        numbers = [value for name, value in got[kind].items() if name != "per_class"]
        wanted = [math.nan if value == -1 else value for value in stats]
        np.testing.assert_allclose(numbers, wanted, rtol=0, atol=1e-12)
        classes = [one["AP"] for one in got[kind]["per_class"].values()]
        assert math.isnan(stats[0]) or stats[0] == -1 or np.nanmean(classes) == pytest.approx(stats[0])


# ---- rows


@hypothesis.given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_masks_come_back(height, width, seed):
    from pycocotools import mask as coco_masks

    masks = np.random.default_rng(seed).random((height, width, 3)) < [0, 0.1, 0.9]
    encoded = [scoring.encode_mask(masks[:, :, n]) for n in range(3)]
    np.testing.assert_array_equal(coco_masks.decode(encoded).astype(bool), masks)
    assert json.loads(json.dumps(encoded)) == encoded and encoded[0]["size"] == [height, width]
    boxes = coco_masks.toBbox(encoded)
    np.testing.assert_array_equal(boxes[:, [1, 0, 3, 2]] + np.pad(boxes[:, [1, 0]], ((0, 0), (2, 0))),
                                  extract_bboxes(masks))


def test_rows_are_plain():
    masks, _ = truth((1, 2, 3, 12, 33), (1, 4, 4, 6, 6))
    rois, ids, scores = extract_bboxes(masks), np.array([3, 1], np.int32), np.array([0.75, 0.5], np.float32)
    rows = scoring.coco_results(np.int64(5), rois, ids, scores, masks.astype(np.uint8))
    assert json.loads(json.dumps(rows)) == rows
    assert [row.pop("segmentation")["size"] for row in rows] == [[64, 80]] * 2
    assert rows == [{"image_id": 5, "category_id": 3, "bbox": [3, 2, 30, 10], "score": 0.75},
                    {"image_id": 5, "category_id": 1, "bbox": [4, 4, 2, 2], "score": 0.5}]  # fmt: skip
    assert scoring.coco_results("a", rois, ids, scores)[0].keys() == rows[0].keys()
    assert scoring.coco_results(5, None, None, None, None) == []
    assert scoring.coco_results(5, np.zeros((0, 4)), ids[:0], scores[:0], masks[:, :, :0]) == []


# ---- a ground truth of one's own


def coco_of(*annotations):
    """A pycocotools COCO of two images, with these annotations."""
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {"images": [{"id": 1, "height": 64, "width": 80}, {"id": 2, "height": 64, "width": 80}],
                    "categories": [{"id": 4}, {"id": 9}], "annotations": list(annotations)}  # fmt: skip
    with contextlib.redirect_stdout(None):
        coco.createIndex()
    return coco


def rows_of(image_id, category_id, *boxes):
    found = result(*truth(*((1, *box) for box in boxes)))
    return scoring.coco_results(image_id, found["rois"], [category_id] * len(boxes), found["scores"], found["masks"])


SQUARE = {"image_id": 1, "category_id": 4, "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]]}


def score(coco, rows, image_ids=(1, 2), **arguments):
    return scoring.score(coco, rows, list(image_ids), [4, 9], ["a", "b"], **{"verbose": 0, **arguments})


def test_annotations_may_lack_what_follows_from_the_mask():
    """Hand-made files start at id 0, which pycocotools takes for no match, number twice, or leave out areas."""
    runs = {"size": [64, 80], "counts": counts(truth((1, 40, 40, 60, 60))[0])}
    coco = coco_of({"id": 0, **SQUARE}, {"id": 0, **SQUARE, "segmentation": runs})
    got = score(coco, rows_of(1, 4, (10, 10, 30, 30), (40, 40, 60, 60)))
    assert got["objects"] == 2
    for kind in KINDS:
        assert got[kind]["AP"] == got[kind]["AP_small"] == pytest.approx(1)


def test_nothing_is_changed():
    coco, rows = coco_of({"id": 1, **SQUARE}), rows_of(1, 4, (10, 10, 30, 30))
    before = json.dumps([coco.dataset, rows])
    score(coco, rows)
    assert json.dumps([coco.dataset, rows]) == before


def test_other_images_and_categories_do_not_count():
    coco = coco_of({"id": 1, **SQUARE}, {"id": 2, **SQUARE, "image_id": 2}, {"id": 3, **SQUARE, "category_id": 5})
    rows = rows_of(1, 4, (10, 10, 30, 30)) + rows_of(2, 9, (0, 0, 5, 5)) + rows_of(1, 5, (0, 0, 5, 5))
    got = score(coco, rows, image_ids=[1])
    assert (got["images"], got["objects"], got["detections"]) == (1, 1, 1) and got["segm"]["AP"] == pytest.approx(1)


def test_classes_of_one_name_are_told_apart():
    coco = coco_of({"id": 1, **SQUARE})
    got = scoring.score(coco, [], [1], [4, 9], ["same", "same"], "bbox", verbose=0)
    assert list(got["bbox"]["per_class"]) == ["same (4)", "same (9)"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_class_that_is_called_as_another_is_labelled_is_told_apart_too(order):
    names = [["x", "x", "x (9)"][n] for n in order]
    got = scoring.score(coco_of({"id": 1, **SQUARE}), [], [1], [4, 9, 11], names, "bbox", verbose=0)["bbox"]
    assert len(got["per_class"]) == 3 and sum(one["objects"] for one in got["per_class"].values()) == 1
    assert "x (9)" in got["per_class"]


def test_what_pycocotools_would_get_wrong_is_refused():
    coco, rows = coco_of({"id": 1, **SQUARE}), rows_of(1, 4, (10, 10, 30, 30))
    with pytest.raises(ValueError, match="the ground truth has no image 7"):
        score(coco, [*rows, {**rows[0], "image_id": 7}])
    with pytest.raises(ValueError, match="the ground truth has no image 3"):
        score(coco, rows, image_ids=[1, 3])
    with pytest.raises(ValueError, match="image_ids is empty"):
        score(coco, rows, image_ids=[])
    small = {**rows[0], "segmentation": scoring.encode_mask(np.ones((32, 40), bool))}
    with pytest.raises(ValueError, match=r"\[32, 40\] in image 1 of \(height, width\) \[64, 80\]"):
        score(coco, [small])
    boxes = [{name: value for name, value in rows[0].items() if name != "segmentation"}]
    with pytest.raises(ValueError, match="without a mask in image 1"):
        score(coco, boxes)
    assert score(coco, boxes, eval_type="bbox")["bbox"]["AP"] == pytest.approx(1)


# ---- what is printed


def test_summaries_and_table(capsys):
    score(coco_of({"id": 1, **SQUARE}), rows_of(1, 4, (10, 10, 30, 30)), verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith(":")] == ["Boxes:", "Masks:"]
    assert sum(" @[ IoU=" in line for line in lines) == 24 and len(lines) == 2 * (12 + 2) + 7
    assert lines[-4].split() == ["a", "1", *["1.000"] * 8]
    assert lines[-3].split() == ["b", "0", *["-"] * 8]
    assert lines[-2].split() == ["all", "1", *["1.000"] * 8]
    assert lines[-1].strip() == "at most 100 detections per image and class"


def test_a_larger_limit_is_said(capsys):
    score(coco_of({"id": 1, **SQUARE}), [], verbose=1, max_detections=400, eval_type="segm")
    printed = capsys.readouterr().out
    assert printed.count("maxDets=100 ] = 0.000") == 6 and "maxDets=400" not in printed  # medium and large: -1
    assert "at most 400 detections per image and class (in the summary above: 100)" in printed


def test_names_are_no_markup(capsys):
    names = ["[red]apple[/red]", "a very long name of a class that is not to be cut off at any width whatsoever"]
    scoring.score(coco_of({"id": 1, **SQUARE}), [], [1], [4, 9], names)
    printed = capsys.readouterr().out
    assert "[red]apple[/red]" in printed and "…" not in printed
