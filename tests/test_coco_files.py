"""Annotations in COCO's format, read through the COCO sample: masks, filters, and all that can be wrong with them."""

import json
import re
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tiny
from coco_folders import FOLDER, SQUARE, annotation, coco, load, make_folder

from mrcnn.data.coco_files import rle_tools

# ---- reading


def test_polygons_rle_and_crowds_become_masks(tmp_path):
    counts = [100, 60, 20, 10, 410]
    folder = make_folder(tmp_path, [
        annotation(7, category_id=3, segmentation=([1, 1, 4, 1, 4, 4, 1, 4], SQUARE)),
        annotation(8, category_id=8, segmentation={"size": [20, 30], "counts": counts}, iscrowd=1),
        annotation(9, segmentation=([5.0, 5.0, 5.2, 5.0, 5.2, 5.2],)),  # covers no pixel
    ])  # fmt: skip
    dataset = load(folder)
    masks, class_ids = dataset.load_mask(0)
    assert masks.shape == (20, 30, 2) and masks.dtype == bool and class_ids.dtype == np.int32
    assert class_ids.tolist() == [2, -3]
    assert masks[1:4, 1:4, 0].all() and masks[3:9, 2:12, 0].all() and masks[:, :, 0].sum() == 9 + 60 - 2
    assert np.array_equal(masks[:, :, 1].ravel(order="F"), np.repeat([0, 1, 0, 1, 0], counts).astype(bool))
    assert dataset.load_mask(1)[0].shape == (32, 24, 0) and dataset.load_mask(1)[1].tolist() == []
    assert dataset.class_names == ["BG", "person", "car", "truck"]
    assert dataset.image_info[0]["id"] == 1 and dataset.load_image(1).shape == (32, 24, 3)
    assert dataset.image_reference(0) == "https://cocodataset.org/#explore?id=1"
    mask = dataset.annToMask(annotation(1), 20, 30)
    assert mask.dtype == np.uint8 and mask.sum() == 60 and dataset.annToRLE(annotation(1), 20, 30)["size"] == [20, 30]


def test_what_annotations_may_lack_is_added(tmp_path):
    dataset = load(make_folder(tmp_path))
    (made,) = dataset.coco_annotations(0)
    assert (made["area"], made["bbox"], made["iscrowd"]) == (60, [2, 3, 10, 6], 0)


@pytest.mark.parametrize("nothing", [None, [], ""])
def test_what_is_null_or_empty_is_added_too(tmp_path, nothing):
    lacking = annotation(1, area=nothing, bbox=nothing, iscrowd=nothing)
    (made,) = load(make_folder(tmp_path, [lacking])).coco_annotations(0)
    assert (made["area"], made["bbox"], made["iscrowd"]) == (60, [2, 3, 10, 6], 0)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_compressed_masks_are_read(tmp_path, share):
    """Runs of all lengths, so that the numbers in their text have one character or several, of both signs."""
    masks = np.asfortranarray(np.random.default_rng(1).random((200, 300, 30)) < share, np.uint8)
    masks[:, 40:250, :20] &= masks[:, 40:41, :20]  # long runs
    texts = [one["counts"].decode("ascii") for one in rle_tools().encode(masks)]
    annotations = [annotation(n, segmentation={"size": [200, 300], "counts": text}) for n, text in enumerate(texts)]
    dataset = load(make_folder(tmp_path, annotations, sizes=[(300, 200)]))
    visible = masks.any(axis=(0, 1))
    assert len(dataset.image_info[0]["annotations"]) == 30
    assert np.array_equal(dataset.load_mask(0)[0], masks[:, :, visible].astype(bool))


def test_a_filter_keeps_images_that_show_a_class(tmp_path):
    folder = make_folder(tmp_path, [annotation(1, 1, 1), annotation(2, 1, 3), annotation(3, 2, 1)])
    dataset = load(folder, class_ids=[3])
    assert dataset.class_names == ["BG", "car"] and [info["id"] for info in dataset.image_info] == [1]
    assert dataset.load_mask(0)[1].tolist() == [1]
    assert load(folder).num_images == 2
    with pytest.raises(ValueError, match="has no category 2; its ids are 1: person, 3: car, 8: truck"):
        load(folder, class_ids=[2])


def test_a_byte_order_mark_does_no_harm(tmp_path):
    path = make_folder(tmp_path) / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert load(tmp_path).num_images == 2


def test_annotations_for_pycocotools_on_request(tmp_path):
    dataset = coco.CocoDataset()
    truth = dataset.load_coco(make_folder(tmp_path), "val", 2017, return_coco=True)
    assert truth.getImgIds() == [1, 2] and truth.loadAnns(truth.getAnnIds())[0]["area"] == 60


LOADING = """
import json, re, sys, time
sys.path.append({samples!r})
import coco
started = time.process_time()
dataset = coco.CocoDataset()
dataset.load_coco({folder!r}, "val", "2017", return_coco=True)
dataset.prepare()
seconds = time.process_time() - started
peak = re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]
print(json.dumps([dataset.num_images, seconds, int(peak) / 1024]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is asked of Linux")
def test_a_file_of_val2017s_size_opens_quickly(tmp_path, run_python):
    draw = np.random.default_rng(0)
    images = [
        {"license": 1, "file_name": f"{n:012d}.jpg", "coco_url": f"http://images.cocodataset.org/val2017/{n:012d}.jpg",
         "height": 480, "width": 640, "date_captured": "2013-11-14 17:02:52", "id": n,
         "flickr_url": f"http://farm7.staticflickr.com/6116/{n}_da26cf2c9e_z.jpg"}
        for n in range(5000)
    ]  # fmt: skip
    annotations = [
        annotation(n, n % 5000, n % 80, (draw.uniform(0, 480, 2 * draw.integers(5, 55)).round(2).tolist(),),
                   area=1605.78, iscrowd=0, bbox=[60.72, 30.31, 209.04, 208.06])
        for n in range(36000)
    ]  # fmt: skip
    data = {"info": {"year": 2017}, "licenses": [{"id": 1, "name": "Attribution", "url": "http://example.org"}],
            "images": images, "annotations": annotations,
            "categories": [{"supercategory": "thing", "id": n, "name": f"thing {n}"} for n in range(80)]}  # fmt: skip
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps(data))
    assert path.stat().st_size > 18e6
    count, seconds, megabytes = json.loads(run_python(LOADING.format(samples=str(FOLDER), folder=str(tmp_path))))
    assert count == 5000 and seconds < 5 and megabytes < 500


@pytest.mark.slow
def test_a_file_of_compressed_masks_opens_quickly(tmp_path):
    draw = np.random.default_rng(0)
    masks = np.asfortranarray(draw.random((480, 640, 20)) > 0.999, np.uint8)
    texts = [one["counts"].decode("ascii") for one in rle_tools().encode(masks)]
    assert min(map(len, texts)) > 500
    annotations = [
        annotation(n, 1, segmentation={"size": [480, 640], "counts": texts[n % 20]}, area=1, bbox=[1, 2, 3, 4])
        for n in range(36000)
    ]
    folder = make_folder(tmp_path, annotations, sizes=[(640, 480)])
    started = time.process_time()
    assert len(load(folder).image_info[0]["annotations"]) == 36000
    assert time.process_time() - started < 5


# ---- bad input


def rle(counts):
    return {"size": [20, 30], "counts": counts}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (annotation(4, image_id=99), r"annotation 4 of image 99 belongs to an image that the file does not list;"),
        (annotation(4, category_id=2), r"annotation 4 of image 1 has the category 2, .* 1: person, 3: car, 8: truck"),
        (annotation(4, segmentation=([1, 1, 5, 5, 9],)), r"annotation 4 of image 1 has a polygon of 5 numbers"),
        (annotation(4, segmentation=([1, 1, 5, 5, 9, float("nan")],)), "something that is no number"),
        (annotation(4, segmentation=([1, 1, 5, 5, 9, "x"],)), "something that is no number"),
        (annotation(4, segmentation=([[1, 1]],)), r"something that is no number|polygon of 1 numbers"),
        (annotation(4, segmentation=(7,)), "polygon that is no list"),
        (annotation(4, segmentation=None), "has no mask"),
        (annotation(4, segmentation={"size": [20, 30], "counts": [5, 5]}), r"RLE counts of 10 pixels .* \[20, 30\]"),
        (annotation(4, segmentation={"size": 600, "counts": [600]}), "RLE of the size 600"),
        (annotation(4, segmentation=rle("garbage~~")), "annotation 4 of image 1 has RLE counts .*: 'garbage~~'; draw"),
        (annotation(4, segmentation=rle("05")), r"RLE counts of 5 pixels for a mask of \[20, 30\]"),
        *((annotation(4, segmentation=rle(counts)), "RLE counts that are no lengths of runs")
          for counts in ("", "P", "o", "\u1234", "PPPPPPPPPP0", None, 7, [], ["a"], [600.0], [-1, 601])),
        (annotation(4, image_id=[1]), r"annotation 4 of image \[1\] belongs to an image that the file does not list"),
        (annotation(4, category_id=[1]), r"has the category \[1\], which"),
        (annotation(4, category_id=1.0), "has the category 1.0, which"),
        (annotation([4]), r"annotation 1 of the list has the id \[4\]; ids must be whole numbers, or text if all are"),
        (annotation("4"), "annotation 1 of the list has the id '4'"),
        (annotation(4, iscrowd="0"), "has iscrowd '0'; it must be 0 or 1"),
        (annotation(4, area="12"), "has the area '12', which is no number"),
        (annotation(4, area=10**400), "has the area 1000"),
        (annotation(4, bbox=[1, 2, 3]), r"has the bbox \[1, 2, 3\], which must be four numbers"),
        (annotation(4, bbox=[1, 2, 3, None]), "which must be four numbers"),
        (annotation(4, segmentation=([1, 1, 5, 5, 9, 10**400],)), "something that is no number"),
        (annotation(4, segmentation={"size": [2, 3], "counts": [2, 4]}), r"\[2, 3\], but its image has \[20, 30\]"),
    ],
)
def test_annotations_that_cannot_be_right_are_named(tmp_path, wrong, message):
    folder = make_folder(tmp_path, [annotation(1), wrong])
    with pytest.raises(ValueError, match=rf"instances_val2017\.json: .*{message}"):
        load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("\x80", "is not JSON"),
        ("[]", "no list of images, annotations, categories"),
        ('{"images": [], "annotations": {}}', "no list of annotations, categories"),
        (10**5 * "[" + 10**5 * "]", "is not JSON"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": null}]}', "category 1 has the name None"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": ["x"]}]}', "category 1 .*'x'.*be text"),
        ('{"images": [{"id": 1, "file_name": "", "width": 1000000000, "height": 3}], "annotations": [], '
         '"categories": []}', "image 1 has width 1000000000 and height 3; these must be its pixels"),
        ('{"images": [{"id": 1, "file_name": "", "width": true, "height": 3}], "annotations": [], "categories": []}',
         "image 1 has width True"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "image 0 .* no file_name, width, height"),
        ('{"images": [], "annotations": [{"image_id": 1}], "categories": []}', "annotation 0 of the list has no id"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": ""}, {"id": 1, "name": ""}]}', "the id 1"),
        ('{"images": [{"id": 1, "file_name": "", "width": 0, "height": 3}], "annotations": [], "categories": []}',
         "width 0"),
        ('{"images": [{"id": 1, "file_name": null, "width": 2, "height": 3}], "annotations": [], "categories": []}',
         "image 1 has the file_name None"),
        ('{"images": [{"id": [1], "file_name": "", "width": 2, "height": 3}], "annotations": [], "categories": []}',
         r"image 0 of the list has the id \[1\]"),
        ('{"images": [], "annotations": [], "categories": [{"id": "1", "name": ""}]}', "id '1'; ids must be whole"),
    ],
)
def test_files_that_are_not_cocos_are_named(tmp_path, text, message):
    path = make_folder(tmp_path) / "annotations" / "instances_val2017.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"instances_val2017\.json.*{message}"):
        load(tmp_path)


def test_thin_polygons_are_left_out_with_a_warning(tmp_path):
    thin = annotation(4, segmentation=([1, 1, 9, 9],)), annotation(5, segmentation=(SQUARE, [1, 1, 9, 9]))
    folder = make_folder(tmp_path, [annotation(1), *thin, annotation(6, segmentation=[])])
    with pytest.warns(UserWarning, match="3 polygons have less than three points .*annotation 4 of image 1"):
        dataset = load(folder)
    assert [a["id"] for a in dataset.image_info[0]["annotations"]] == [1, 5]
    assert dataset.load_mask(0)[0].sum(axis=(0, 1)).tolist() == [60, 60]


@pytest.mark.parametrize("far", [40, 1e9, 1e300])
def test_polygons_outside_of_the_image_are_clipped_with_one_warning(tmp_path, far):
    beyond = [[10, 5, far, 5, far, 15, 10, 15], [-far, -far, -far, -50, -50, -50]]
    folder = make_folder(tmp_path, [annotation(4, segmentation=(beyond[0],)), annotation(5, segmentation=(beyond[1],))])
    with pytest.warns(UserWarning, match="2 polygons reach outside .*annotation 4 of image 1") as caught:
        dataset = load(folder)
    assert len(caught) == 1
    masks, _ = dataset.load_mask(0)
    assert masks.shape == (20, 30, 1) and masks[5:15, 10:].all() and masks.sum() == 200


def test_where_something_of_all_polygons_is_left_nothing_else_is_said(tmp_path):
    folder = make_folder(tmp_path, [annotation(4, segmentation=([10, 5, 40, 5, 40, 15, 10, 15],))])
    with pytest.warns(UserWarning, match="1 polygons reach outside of their image and are clipped, the first in"):
        load(folder)


def test_a_polygon_that_only_touches_the_image_is_no_object(tmp_path):
    corner, side = [-50, 50, -50, -50, 0, 0], [30, 2, 60, 2, 60, 9, 30, 9]
    folder = make_folder(tmp_path, [annotation(1), annotation(4, segmentation=(corner,)),
                                    annotation(5, segmentation=(SQUARE, side))])  # fmt: skip
    with pytest.warns(UserWarning, match="2 polygons reach outside .*; of 2 nothing is left, .*annotation 4 of image"):
        dataset = load(folder)
    assert [(a["id"], len(a["segmentation"])) for a in dataset.coco_annotations(0)] == [(1, 1), (5, 1)]
    assert dataset.load_mask(0)[0].shape == (20, 30, 2)


def test_a_crowd_of_another_size_is_scaled(tmp_path):
    crowd = annotation(4, segmentation={"size": [10, 15], "counts": [75, 75]}, iscrowd=1)
    with pytest.warns(UserWarning, match="1 masks of crowds have another size .*annotation 4 of image 1"):
        dataset = load(make_folder(tmp_path, [crowd]))
    masks, class_ids = dataset.load_mask(0)
    assert class_ids.tolist() == [-1] and masks.shape == (20, 30, 1) and 280 <= masks.sum() <= 320
    assert dataset.coco_annotations(0)[0]["segmentation"]["size"] == [20, 30]


def test_images_of_another_size_than_their_annotations(tmp_path):
    folder = make_folder(tmp_path)
    PIL.Image.new("RGB", (31, 20)).save(folder / "val2017" / f"{1:012d}.png")
    dataset = load(folder)
    for method in (dataset.load_mask, dataset.coco_annotations):
        with pytest.raises(ValueError, match=r"image 1 of source 'coco' .*\.png\) has the .*\(20, 31\), .* \(20, 30\)"):
            method(0)


def test_bad_images_are_counted_and_training_goes_on(tmp_path, caplog):
    from mrcnn import model as modellib

    annotations = [annotation(n, n) for n in range(1, 61)]
    folder = make_folder(tmp_path, annotations, sizes=[(64, 64)] * 60)
    files = sorted((folder / "val2017").iterdir())
    files[3].unlink()
    files[5].write_bytes(files[5].read_bytes()[:60])
    PIL.Image.new("RGB", (32, 64)).save(files[7])
    dataset = load(folder)
    batches = modellib.DataGenerator(dataset, tiny.config(IMAGES_PER_GPU=4), shuffle=False)
    assert sum(len(batches[i][0][0]) for i in range(15)) == 60
    problems = dict(batches.problems)
    assert [int(re.search(r"id=(\d+)", link)[1]) for link in sorted(problems)] == [4, 6, 8]
    texts = [problems[f"https://cocodataset.org/#explore?id={n}"] for n in (4, 6, 8)]
    assert "there is no such file" in texts[0] and "cannot be read" in texts[1] and "(64, 32)" in texts[2]
    assert "left out, 3 of" in caplog.text


@pytest.mark.parametrize(
    ("subset", "year", "error", "message"),
    [
        ("vall", "2017", ValueError, "Did you mean 'val'"),
        ("val", "2071", ValueError, "Did you mean '2017'"),
        ("minival", "2017", ValueError, "parts of 2014's .*; of 2017 use train and val"),
        ("train", 2017, FileNotFoundError, r"instances_train2017\.json\. The folder has instances_val2017\.json"),
        ("vall", "2017", ValueError, r"there is no .*instances_vall2017\.json: subset must be one of"),
        ("minival", "2014", FileNotFoundError, "instances_minival2014"),
        ("train", "", FileNotFoundError, r"there is no .*instances_train\.json\. The folder has instances_val2017"),
        ("street", "", FileNotFoundError, r"there is no .*instances_street\.json\."),
        ("street", "2017", FileNotFoundError, r"there is no .*instances_street2017\.json\."),
        ("train", "_new", FileNotFoundError, r"there is no .*instances_train_new\.json\."),
    ],
)
def test_wrong_subsets_and_years(tmp_path, subset, year, error, message):
    make_folder(tmp_path)
    with pytest.raises(error, match=message):
        coco.CocoDataset().load_coco(tmp_path, subset, year)


def test_subsets_of_2014_and_of_other_data(tmp_path):
    make_folder(tmp_path, name="val2014")
    path = tmp_path / "annotations" / "instances_val2014.json"
    path.rename(path.with_name("instances_minival2014.json"))
    make_folder(tmp_path, name="street")
    dataset = coco.CocoDataset()
    dataset.load_coco(tmp_path, "minival")
    dataset.load_coco(tmp_path, "street", "")
    assert [Path(info["path"]).parent.name for info in dataset.image_info] == ["val2014"] * 2 + ["street"] * 2
    assert dataset.load_image(0).shape == dataset.load_image(2).shape == (20, 30, 3)
