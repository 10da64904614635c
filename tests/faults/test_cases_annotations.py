"""Annotation files of COCO and of VIA 1 and 2, good, mutated and damaged: the right masks, or a clear error."""

import contextlib
import io
import math
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import scripts
from coco_folders import coco
from faults import documents, strategies
from faults.cases import Refused, attempt, cases, listing
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


def check_coco(dataset, loaded, document=None, truth=()):
    check_masks(dataset, loaded)
    originals = {a["id"]: a for a in document["annotations"]} if document else {}
    images = {i["id"]: i for i in document["images"]} if document else {}
    for info, (masks, _) in zip(dataset.image_info, loaded, strict=True):
        assert masks.any(axis=(0, 1)).all() and masks.shape[2] <= len(info["annotations"])
        for annotation in info["annotations"]:
            assert all(map(math.isfinite, [annotation["area"], *annotation["bbox"]]))
            assert annotation["iscrowd"] in (0, 1)
            number, image = annotation["id"], images.get(info["id"], {})
            same_size = (image.get("width"), image.get("height")) == (info["width"], info["height"])
            original = originals.get(number) if isinstance(number, int) else None
            if number in truth and same_size and original["segmentation"] == annotation["segmentation"]:
                mask = dataset.annToMask(annotation, info["height"], info["width"])
                assert np.array_equal(mask, truth[number]), annotation


def check_via(dataset, loaded):
    check_masks(dataset, loaded)
    for info, (masks, _) in zip(dataset.image_info, loaded, strict=True):
        assert (info["width"], info["height"]) == documents.PHOTOS[info["id"].rsplit("/")[-1]]
        assert masks.shape[2] == len(info["polygons"])


@cases(0.04)
@given(documents.coco_documents())
def test_good_coco_files_give_their_masks(folder, drawn):
    document, truth = drawn
    result = attempt("COCO, good", lambda: load_coco(folder, strategies.to_bytes(document)))
    check_coco(*result, document, truth)
    assert result[0].num_images == len(document["images"])


@cases(0.2)
@given(documents.coco_documents(), st.lists(strategies.mutations, min_size=1, max_size=4))
def test_mutated_coco_files(folder, drawn, changes):
    content = strategies.to_bytes(strategies.mutated(drawn[0], changes))
    result = attempt("COCO, mutated", lambda: load_coco(folder, content), COCO_FILE)
    if not isinstance(result, Refused):
        check_coco(*result, *drawn)


@cases(0.06)
@given(documents.coco_documents(), st.lists(strategies.damages, min_size=1, max_size=4))
def test_damaged_coco_files(folder, drawn, changes):
    content = strategies.damaged(strategies.to_bytes(drawn[0]), changes)
    result = attempt("COCO, damaged", lambda: load_coco(folder, content), COCO_FILE)
    if not isinstance(result, Refused):
        check_coco(*result)


@cases(0.04)
@given(documents.via_documents())
def test_good_via_files_give_their_masks(folder, drawn):
    document, truth = drawn
    result = attempt("VIA, good", lambda: load_via(folder, strategies.to_bytes(document)), VIA_FILE)
    if isinstance(result, Refused):  # what VIA itself lets a user do, but nobody can train on
        assert any(text in str(result.error) for text in ("no image has a region", "must name one class")), result.error
        return
    check_via(*result)
    dataset, loaded = result
    for info, (masks, _) in zip(dataset.image_info, loaded, strict=True):
        for number in range(masks.shape[2]):
            if (info["id"], number) in truth:
                assert np.array_equal(masks[:, :, number], truth[info["id"], number])


@cases(0.16)
@given(documents.via_documents(), st.lists(strategies.mutations, min_size=1, max_size=4))
def test_mutated_via_files(folder, drawn, changes):
    content = strategies.to_bytes(strategies.mutated(drawn[0], changes))
    result = attempt("VIA, mutated", lambda: load_via(folder, content), VIA_FILE)
    if not isinstance(result, Refused):
        check_via(*result)


@cases(0.05)
@given(documents.via_documents(), st.lists(strategies.damages, min_size=1, max_size=4))
def test_damaged_via_files(folder, drawn, changes):
    content = strategies.damaged(strategies.to_bytes(drawn[0]), changes)
    result = attempt("VIA, damaged", lambda: load_via(folder, content), VIA_FILE)
    if not isinstance(result, Refused):
        check_via(*result)
