"""Annotation files of COCO and of VIA 1 and 2, good, mutated and damaged: the right masks, or a clear error."""

import contextlib
import io
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import scripts
from coco_folders import coco
from faults import documents, references, strategies
from faults.cases import Refused, attempt, cases, listing, looked_at
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.slow

balloon = scripts.load_script(scripts.ROOT / "samples" / "balloon", "balloon")
COCO_FILE, VIA_FILE = "instances_val2017.json", "via_region_data.json"


@pytest.fixture(scope="module")
def folder():
    """A folder for both kinds of files, with the photos of VIA's."""
    with tempfile.TemporaryDirectory() as made:
        made = Path(made)
        (made / "annotations").mkdir()
        (made / "train").mkdir()
        for name, size in documents.PHOTOS.items():
            PIL.Image.new("RGB", size).save(made / "train" / name)
        (made / "annotations" / COCO_FILE).touch()
        (made / "train" / VIA_FILE).touch()
        files = listing(made)
        yield made
        assert listing(made) == files


def load_coco(folder, content):
    """The data set of a file with this content, and its masks: list of (masks, class ids)."""
    (folder / "annotations" / COCO_FILE).write_bytes(content)
    dataset = coco.CocoDataset()
    with contextlib.redirect_stdout(io.StringIO()):
        dataset.load_coco(folder, "val", "2017", return_coco=True)
    dataset.prepare()
    return dataset, [dataset.load_mask(image_id) for image_id in dataset.image_ids]


def load_via(folder, content):
    (folder / "train" / VIA_FILE).write_bytes(content)
    dataset = balloon.BalloonDataset()
    dataset.load_balloon(folder, "train")
    dataset.prepare()
    return dataset, [dataset.load_mask(image_id) for image_id in dataset.image_ids]


def check_masks(dataset, loaded):
    """What every loaded data set must fulfil, whatever its file held."""
    assert len(loaded) == dataset.num_images > 0 or not dataset.num_images
    for info, (masks, class_ids) in zip(dataset.image_info, loaded, strict=True):
        assert masks.dtype == bool and masks.shape == (info["height"], info["width"], len(class_ids))
        assert class_ids.dtype == np.int32
        assert ((abs(class_ids) >= 1) & (abs(class_ids) < dataset.num_classes)).all()


def check_against(found, mask, sure):
    """A mask, and the one it must be where that can be told; counts it unless nothing could be told."""
    assert np.array_equal(found[sure], mask[sure])
    looked_at["masks"] += bool((mask & sure).any())


def check_coco(dataset, loaded, document=None, truth=()):
    """Masks, class ids and their order, against the file's JSON; masks where `truth` has them (`coco_documents`)."""
    check_masks(dataset, loaded)
    for info, (masks, _) in zip(dataset.image_info, loaded, strict=True):
        assert masks.any(axis=(0, 1)).all() and masks.shape[2] <= len(info["annotations"])
        for annotation in info["annotations"]:
            assert all(map(math.isfinite, [annotation["area"], *annotation["bbox"]]))
            assert annotation["iscrowd"] in (0, 1)
    if document is None:
        return
    categories = sorted(category["id"] for category in document["categories"])
    assert [info["id"] for info in dataset.image_info] == [image["id"] for image in document["images"]]
    for info, (masks, class_ids) in zip(dataset.image_info, loaded, strict=True):
        drawn = _drawn_annotations(dataset, info, document, truth)
        assert len(drawn) == len(class_ids)
        for n, (annotation, mask, sure) in enumerate(drawn):
            sign = -1 if annotation.get("iscrowd") else 1
            assert class_ids[n] == sign * (1 + categories.index(annotation["category_id"]))
            check_against(masks[:, :, n], mask, sure)


def _drawn_annotations(dataset, info, document, truth):
    """[(annotation, mask, sure)] of the objects that an image must have, in the order of the file."""
    size, kept = (info["height"], info["width"]), {annotation["id"]: annotation for annotation in info["annotations"]}
    drawn = []
    for annotation in document["annotations"]:
        number = annotation["id"]
        if annotation["image_id"] != info["id"]:
            assert number not in kept
            continue
        mask, sure = truth.get(documents.coco_key(annotation["segmentation"], size), np.zeros((2, *size), bool))
        assert number in kept or not (mask & sure).any(), "an object is lost"
        # Where no pixel is sure, as of a line or of what a mutation made, the loader says whether it covers any.
        if (mask & sure).any() or (not sure.all() and number in kept and dataset.annToMask(kept[number], *size).any()):
            drawn.append((annotation, mask, sure))
    return drawn


def check_via(dataset, loaded, document=None):
    """Masks, class ids and their order, against the file's JSON."""
    check_masks(dataset, loaded)
    for info, (masks, _) in zip(dataset.image_info, loaded, strict=True):
        assert (info["width"], info["height"]) == documents.PHOTOS[info["id"].rsplit("/")[-1]]
        assert masks.shape[2] == len(info["polygons"])
    if document is None:
        return
    photos = documents.via_photos(document)
    classes = sorted({documents.via_class(region) for _, regions in photos for region in regions.values()} - {None})
    for (name, regions), info, (masks, class_ids) in zip(photos, dataset.image_info, loaded, strict=True):
        assert info["id"] == name
        for n, region in enumerate(regions.values()):
            check_against(masks[:, :, n], *references.via_shape(region["shape_attributes"], masks.shape[:2]))
            if "?" not in classes:  # a mutation has made a class that no one can tell
                class_name = documents.via_class(region)
                assert class_ids[n] == 1 + (classes.index(class_name) if class_name else 0)
                looked_at["classes"] += class_name is not None


@cases(0.04, masks=0.7)
@given(documents.coco_documents())
def test_good_coco_files_give_their_masks(folder, drawn):
    document, truth = drawn
    result = attempt("COCO, good", lambda: load_coco(folder, strategies.to_bytes(document)))
    check_coco(*result, document, truth)


@cases(0.2, masks=0.02)
@given(documents.coco_documents(), st.lists(strategies.mutations, min_size=1, max_size=4))
def test_mutated_coco_files(folder, drawn, changes):
    content = strategies.to_bytes(strategies.mutated(drawn[0], changes))
    result = attempt("COCO, mutated", lambda: load_coco(folder, content), COCO_FILE)
    if not isinstance(result, Refused):
        check_coco(*result, json.loads(content), drawn[1])


@cases(0.06)
@given(documents.coco_documents(), st.lists(strategies.damages, min_size=1, max_size=4))
def test_damaged_coco_files(folder, drawn, changes):
    content = strategies.damaged(strategies.to_bytes(drawn[0]), changes)
    result = attempt("COCO, damaged", lambda: load_coco(folder, content), COCO_FILE)
    if not isinstance(result, Refused):
        check_coco(*result, json.loads(content), drawn[1])


@cases(0.04, masks=0.7, classes=0.7)
@given(documents.via_documents())
def test_good_via_files_give_their_masks(folder, document):
    result = attempt("VIA, good", lambda: load_via(folder, strategies.to_bytes(document)), VIA_FILE)
    regions = [(f"{name}, region {number}", documents.via_class(region))
               for name, numbered in documents.via_photos(document) for number, region in numbered.items()]
    without = [where for where, name in regions if name is None]
    # What VIA itself lets a user do, but nobody can train on: no region at all, or some that have no class.
    if not regions or 0 < len(without) < len(regions):
        wanted = f": {without[0]}: attribute 'kind' must name one class" if regions else "no image has a region"
        assert isinstance(result, Refused) and wanted in str(result.error)
    else:
        assert not isinstance(result, Refused), result.error
        check_via(*result, document)


@cases(0.04)
@given(documents.broken_via_documents())
def test_a_region_that_nobody_can_use_is_named(folder, drawn):
    document, region = drawn
    result = attempt("VIA, one bad region", lambda: load_via(folder, strategies.to_bytes(document)), VIA_FILE)
    assert isinstance(result, Refused) and region in str(result.error)


@cases(0.12)  # of which a tenth is accepted: too few to ask for a number of masks
@given(documents.via_documents(), st.lists(strategies.mutations, min_size=1, max_size=4))
def test_mutated_via_files(folder, document, changes):
    content = strategies.to_bytes(strategies.mutated(document, changes))
    result = attempt("VIA, mutated", lambda: load_via(folder, content), VIA_FILE)
    if not isinstance(result, Refused):
        check_via(*result, json.loads(content))


@cases(0.05)
@given(documents.via_documents(), st.lists(strategies.damages, min_size=1, max_size=4))
def test_damaged_via_files(folder, document, changes):
    content = strategies.damaged(strategies.to_bytes(document), changes)
    result = attempt("VIA, damaged", lambda: load_via(folder, content), VIA_FILE)
    if not isinstance(result, Refused):
        check_via(*result, json.loads(content))
