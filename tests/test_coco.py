"""The COCO sample: settings, results and scores, downloads, its command line and its picture."""

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tiny
from coco_folders import FOLDER, annotation, coco, load, load_script, make_folder

from mrcnn import utils
from mrcnn.engine.h5_layout import write_file


def test_settings_are_the_originals():
    config = coco.CocoConfig()
    assert (config.NAME, config.IMAGES_PER_GPU, config.NUM_CLASSES) == ("coco", 2, 81)
    assert (coco.CocoInferenceConfig().BATCH_SIZE, coco.CocoInferenceConfig().DETECTION_MIN_CONFIDENCE) == (1, 0)
    assert coco.DEFAULT_DATASET_YEAR == "2014" and Path(coco.ROOT_DIR) == FOLDER.parents[1]
    assert os.path.join(coco.ROOT_DIR, "mask_rcnn_coco.h5") == coco.COCO_MODEL_PATH
    assert os.path.join(coco.ROOT_DIR, "logs") == coco.DEFAULT_LOGS_DIR
    assert coco.SCHEDULE == [("heads", 40, 1), ("4+", 120, 1), ("all", 160, 0.1)]


# ---- evaluation


class Truth:
    """In a model's place: it finds what the annotations show, all but some."""

    def __init__(self, dataset, left_out=()):
        self.dataset, self.left_out, self.seen = dataset, left_out, 0

    def detect(self, images, verbose):
        (image,) = images
        assert verbose == 0 and np.array_equal(image, self.dataset.load_image(self.seen))
        masks, class_ids = self.dataset.load_mask(self.seen)
        kept = (class_ids > 0) & (self.seen not in self.left_out)
        masks, class_ids, self.seen = masks[..., kept], class_ids[kept], self.seen + 1
        return [{"rois": utils.extract_bboxes(masks), "class_ids": class_ids, "scores": np.ones(len(class_ids)),
                 "masks": masks}]  # fmt: skip


@pytest.fixture
def truth(tmp_path):
    """A data set of two images with their annotations for scoring."""
    crowd = annotation(9, 2, 3, {"size": [32, 24], "counts": [100, 60, 608]}, iscrowd=1)
    folder = make_folder(tmp_path, [annotation(1), annotation(2, 2), annotation(3, 2, 8), crowd])
    dataset = coco.CocoDataset()
    annotations = dataset.load_coco(folder, "val", "2017", return_coco=True)
    dataset.prepare()
    return dataset, annotations


def test_results_are_written_as_coco_does(truth):
    masks = np.zeros((20, 30, 2), np.uint8)
    masks[2:9, 1:11, 0] = 1
    rois = np.array([[2, 1, 9, 11], [0, 0, 5, 5]])
    first, second = coco.build_coco_results(truth[0], [5], rois, np.array([3, 1]), np.array([0.75, 0.5]), masks)
    assert (first["image_id"], first["category_id"], first["bbox"], first["score"]) == (5, 8, [1, 2, 10, 7], 0.75)
    assert second["category_id"] == 1 and first["segmentation"]["size"] == [20, 30]
    assert len(coco.build_coco_results(truth[0], [5, 6], rois, [3, 1], [0.75, 0.5], masks)) == 4
    assert coco.build_coco_results(truth[0], [5], None, None, None, None) == []
    json.dumps([first, second])


def test_the_truth_itself_scores_one(truth, tmp_path, capsys):
    dataset, annotations = truth
    path = tmp_path / "new" / "results.json"
    model = Truth(dataset)
    result = coco.evaluate_coco(model, dataset, annotations, "both", results_path=path)
    assert model.seen == 2 and result["bbox"]["AP"] == result["segm"]["AP"] == pytest.approx(1)
    assert (result["images"], result["objects"], result["detections"]) == (2, 3, 3)
    confusion = result["confusion"]
    assert confusion["names"] == dataset.class_names and confusion["kind"] == "segm"
    assert np.trace(confusion["matrix"]) == np.sum(confusion["matrix"]) == 3
    assert annotations.loadRes(str(path)).getAnnIds() == [1, 2, 3]
    printed = capsys.readouterr().out
    assert printed.count("Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 1.000") == 2
    assert re.search(r"Prediction time: .* per image\nTotal time: ", printed) and "person" in printed
    assert set(coco.evaluate_coco(Truth(dataset), dataset, annotations, verbose=0)) >= {"bbox"}
    assert capsys.readouterr().out == ""


def test_limit_and_image_ids(truth):
    dataset, annotations = truth
    model = Truth(dataset)
    assert coco.evaluate_coco(model, dataset, annotations, "segm", limit=1, verbose=0)["objects"] == 1
    model.seen = 1
    assert coco.evaluate_coco(model, dataset, annotations, image_ids=np.array([1]), verbose=0)["objects"] == 2


def test_nothing_detected_is_a_result(truth, tmp_path):
    dataset, annotations = truth
    path = tmp_path / "results.json"
    model = Truth(dataset, left_out=(0, 1))
    result = coco.evaluate_coco(model, dataset, annotations, "both", results_path=path, verbose=0)
    assert result["bbox"]["AP"] == result["segm"]["AP50"] == result["bbox"]["AR_100"] == 0
    assert json.loads(path.read_text()) == []
    text = json.dumps(coco.without_nan(result), allow_nan=False)
    assert json.loads(text)["bbox"]["AP_large"] is None


def test_an_unreadable_image_is_named_and_left_out(truth, capsys):
    dataset, annotations = truth
    Path(dataset.image_info[1]["path"]).unlink()
    result = coco.evaluate_coco(Truth(dataset), dataset, annotations, verbose=0)
    assert result["images"] == 1 and result["bbox"]["AP"] == pytest.approx(1)
    assert len(result["left_out"]) == 1 and capsys.readouterr().out == ""
    coco.evaluate_coco(Truth(dataset), dataset, annotations)
    assert "1 images were left out:\n  image 2 of source 'coco'" in capsys.readouterr().out


def test_without_a_readable_image_there_is_no_result(truth, tmp_path):
    dataset, annotations = truth
    Path(dataset.image_info[0]["path"]).unlink()
    path = tmp_path / "results.json"
    with pytest.raises(ValueError, match=r"none of the 1 images could be used:\n  image 1 of source 'coco' .* no such"):
        coco.evaluate_coco(Truth(dataset), dataset, annotations, limit=1, results_path=path, verbose=0)
    assert not (tmp_path / "results.json").exists()


def test_the_images_of_coco_are_scored_beside_those_of_others(tmp_path):
    """Their own ids repeat in the other source, whose images `evaluate_coco` cannot know."""
    classes = {1: "person", 3: "car", 8: "truck"}
    mine, cocos = (make_folder(tmp_path / name, [annotation(1), annotation(2, 2, 8)]) for name in ("mine", "coco"))
    dataset = coco.CocoDataset()
    dataset.load_coco(mine, "val", 2017, class_map=classes, source="mine")
    annotations = dataset.load_coco(cocos, "val", 2017, class_map=classes, return_coco=True)
    dataset.prepare()
    model = Truth(dataset)
    model.seen = 2
    result = coco.evaluate_coco(model, dataset, annotations, "both", image_ids=[2, 3], verbose=0)
    assert result["bbox"]["AP"] == result["segm"]["AP"] == pytest.approx(1) and result["objects"] == 2
    with pytest.raises(ValueError, match=r"image 1 of source 'mine' \(.*\.png\) is not COCO's: leave it out"):
        coco.evaluate_coco(Truth(dataset), dataset, annotations, verbose=0)


def test_images_that_are_there_twice_are_refused(truth, tmp_path):
    dataset, annotations = truth
    dataset.load_coco(make_folder(tmp_path / "again", sizes=[(30, 20)]), "val", "2017")
    dataset.prepare()
    with pytest.raises(ValueError, match=r"image 1 of source 'coco' .* is one of 2 with this id: leave it out"):
        coco.evaluate_coco(Truth(dataset), dataset, annotations, image_ids=[0], verbose=0)
    model = Truth(dataset)
    model.seen = 1
    assert coco.evaluate_coco(model, dataset, annotations, image_ids=[1], verbose=0)["bbox"]["AP"] == pytest.approx(1)


def test_images_may_be_numbered_by_text(tmp_path):
    path = make_folder(tmp_path, [annotation("p", "b"), annotation("q", "a", 8)]) / "annotations/instances_val2017.json"
    data = json.loads(path.read_text())
    for image, own in zip(data["images"], "ba", strict=True):
        image["id"] = own
    path.write_text(json.dumps(data))
    dataset = coco.CocoDataset()
    annotations = dataset.load_coco(tmp_path, "val", 2017, return_coco=True)
    dataset.prepare()
    results = tmp_path / "results.json"
    result = coco.evaluate_coco(Truth(dataset), dataset, annotations, "both", results_path=results, verbose=0)
    assert result["bbox"]["AP"] == result["segm"]["AP"] == pytest.approx(1) and result["objects"] == 2
    assert [row["image_id"] for row in json.loads(results.read_text())] == ["b", "a"]


def test_what_evaluate_coco_cannot_score(truth, tmp_path):
    dataset, annotations = truth
    with pytest.raises(ValueError, match="eval_type"):
        coco.evaluate_coco(Truth(dataset), dataset, annotations, "mask")
    merged = load(tmp_path, class_map={1: "thing", 3: "thing"})
    with pytest.raises(ValueError, match="merges some"):
        coco.evaluate_coco(Truth(merged), merged, annotations)
    folder = make_folder(tmp_path / "other", sizes=[(30, 20)])
    other = coco.CocoDataset().load_coco(folder, "val", 2017, return_coco=True)
    with pytest.raises(ValueError, match=r"image 2 of source 'coco' .* is not in the annotations to score with"):
        coco.evaluate_coco(Truth(dataset), dataset, other)
    unprepared = coco.CocoDataset()
    annotations = unprepared.load_coco(folder, "val", 2017, return_coco=True)
    with pytest.raises(ValueError, match="not prepared"):
        coco.evaluate_coco(Truth(dataset), unprepared, annotations)


@pytest.mark.parametrize(("missing", "message"), [("images", "list no images"), ("categories", "list no categories")])
def test_annotations_of_nothing(tmp_path, missing, message):
    folder = make_folder(tmp_path, [], **({"sizes": ()} if missing == "images" else {"categories": []}))
    with pytest.raises(ValueError, match=f"the annotations of val {message}"):
        coco.load_subsets(folder, ["val"], "2017")


# ---- training


def test_half_of_the_images_are_mirrored():
    image, masks = np.arange(24, dtype=np.uint8).reshape(2, 4, 3), np.arange(16).reshape(2, 4, 2)
    rng, mirrored = np.random.default_rng(0), 0
    for _ in range(400):
        new_image, new_masks = coco.flip(image, masks, rng)
        is_mirrored = new_image[0, 0, 0] != 0
        mirrored += is_mirrored
        assert np.array_equal(new_image, image[:, ::-1] if is_mirrored else image)
        assert np.array_equal(new_masks, masks[:, ::-1] if is_mirrored else masks)
    assert 150 < mirrored < 250


# ---- downloads


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """COCO's server on this machine, with tiny archives; its folder."""
    folder, source = tmp_path / "server", make_folder(tmp_path / "source")
    make_folder(source, name="train2017")
    make_folder(source, name="val2014")
    for name in ("zips", "annotations"):
        (folder / name).mkdir(parents=True)
    for name in ("val2017", "val2014"):
        shutil.make_archive(folder / "zips" / name, "zip", source, name)
    shutil.make_archive(folder / "annotations" / "annotations_trainval2017", "zip", source, "annotations")
    with zipfile.ZipFile(folder / "instances_minival2014.json.zip", "w") as archive:
        archive.write(source / "annotations" / "instances_val2014.json", "instances_minival2014.json")
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    url = f"http://127.0.0.1:{made.server_port}"
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(coco, "IMAGES_URL", f"{url}/zips")
    monkeypatch.setattr(coco, "ANNOTATIONS_URL", f"{url}/annotations")
    monkeypatch.setattr(coco, "SUBSET_URLS", {"minival": f"{url}/instances_minival2014.json.zip?dl=0"})
    yield folder
    made.shutdown()
    made.server_close()


def test_downloads_what_is_not_there(server, tmp_path, capsys):
    folder = tmp_path / "data"
    dataset = load(folder, auto_download=True)
    assert dataset.load_image(0).shape == (20, 30, 3)
    assert sorted(os.listdir(folder)) == ["annotations", "val2017"]
    names = [f"instances_{name}.json" for name in ("train2017", "val2014", "val2017")]
    assert sorted(os.listdir(folder / "annotations")) == names
    shutil.rmtree(server)
    load(folder, auto_download=True)  # nothing is asked for
    assert capsys.readouterr().out.count("is there already") == 2


def test_downloads_minival(server, tmp_path):
    dataset = coco.CocoDataset()
    dataset.load_coco(tmp_path / "data", "minival", "2014", auto_download=True)
    assert sorted(os.listdir(tmp_path / "data" / "annotations")) == ["instances_minival2014.json"]
    assert dataset.load_image(0).shape == (20, 30, 3)


def test_an_interrupted_download_goes_on(server, tmp_path, monkeypatch):
    from mrcnn.engine import archives

    def stop(*_):
        raise KeyboardInterrupt

    folder = tmp_path / "data"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(archives, "_unpack_file", stop)
        coco.CocoDataset().auto_download(folder, "val", "2017")
    assert os.listdir(folder) == ["val2017.part"]  # not taken for the images
    (server / "zips" / "val2017.zip").unlink()  # it was fetched, and need not be again
    coco.CocoDataset().auto_download(folder, "val", "2017")
    assert sorted(os.listdir(folder)) == ["annotations", "val2017"] and len(os.listdir(folder / "val2017")) == 2


def test_bad_archives_and_names(server, tmp_path):
    dataset, folder = coco.CocoDataset(), tmp_path / "data"
    with pytest.raises(ValueError, match="Did you mean 'train'"):
        dataset.auto_download(folder, "trian", "2017")
    assert not folder.exists()
    (server / "zips" / "val2017.zip").write_bytes(b"<html>")
    with pytest.raises(ValueError, match="not a file of the expected kind"):
        dataset.auto_download(folder, "val", "2017")
    with pytest.raises(ConnectionError, match="404"):
        dataset.auto_download(folder, "train", "2017")
    assert not (folder / "val2017").exists() and not (folder / "train2017").exists()


# ---- command line


def make_weights(path):
    """A weights file of a single array."""
    write_file(path, {"conv1": {"conv1/bias:0": np.zeros(3, np.float32)}})
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "<command>"),
        ("evaluate --model {file}", "--dataset"),
        ("evaluate --dataset {folder}", "--model"),
        ("evalate --dataset {folder} --model {file}", "Did you mean 'evaluate'"),
        ("evaluate --dataset {folder} --model {file} --year 2015", "'2015' is none of 2014, 2017"),
        ("evaluate --dataset {folder} --model {file}", "instances_minival2014.json"),
        ("train --dataset {folder} --model {file} --year 2017", "instances_train2017.json"),
        ("evaluate --dataset {folder}/no --model {file} --year 2017", "no such folder"),
        ("evaluate --dataset {folder} --model missing.h5 --year 2017", "missing.h5: there is no such file"),
        ("evaluate --dataset {folder} --model imagenet --year 2017", "needs trained weights"),
        ("evaluate --dataset {folder} --model {file} --year 2017 --limit -1", "--limit"),
        ("evaluate --dataset {folder} --model {file} --year 2017 --download maybe", "True or False; received 'maybe'"),
        ("evaluate --dataset {folder} --model {file} --year 2017 --eval-type box", "'box' is none of bbox"),
        ("evaluate --dataset {folder} --model {file} --year 2017 --results {folder}", "is a folder"),
        ("evaluate --dataset {folder} --model {file} --year 2017 --output {file}", "--output"),
        ("evaluate --dataset {folder} --model {file} --year 2017 --epochs 3", "--epochs is for train"),
        ("train --dataset {folder} --model {file} --download --results x.json", "are for evaluate"),
    ],
)
def test_the_command_line_refuses_what_cannot_work(tmp_path, arguments, message, capsys):
    make_folder(tmp_path)
    make_weights(tmp_path / "weights.h5")
    with pytest.raises(SystemExit) as stop:
        coco.parse_arguments(arguments.format(folder=tmp_path, file=tmp_path / "weights.h5").split())
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_flags_of_the_original(tmp_path):
    make_folder(tmp_path)
    weights = make_weights(tmp_path / "weights.h5")
    common = ["evaluate", f"--dataset={tmp_path}", "--year=2017", f"--model={weights}"]
    args = coco.parse_arguments(common)
    assert (args.limit, args.logs, args.eval_type) == (500, coco.DEFAULT_LOGS_DIR, "both")
    for flags, expected in (([], False), (["--download"], True), (["--download=True"], True),
                            (["--download", "False"], False), (["--download=false"], False)):  # fmt: skip
        assert coco.parse_arguments([*common, *flags]).download is expected
    assert coco.parse_arguments([*common[:-1], f"--weights={weights}", "--limit", "0"]).limit == 0


def test_mistakes_show_before_anything_slow(tmp_path, run_python):
    folder = make_folder(tmp_path / "data", [annotation(1, image_id=99)])
    make_weights(tmp_path / "weights.h5")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, FOLDER / "coco.py", *f"evaluate --dataset {folder} --year 2017 --model weights.h5".split()],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 1 and "coco.py: " in result.stderr and "annotation 1 of image 99" in result.stderr
    assert "Traceback" not in result.stderr and "Command:  evaluate" in result.stdout
    code = f"import sys; sys.path.append({str(FOLDER)!r}); import coco; print(*sys.modules)"
    assert not {"keras", "pycocotools", "matplotlib"} & set(run_python(code).split())


@pytest.fixture
def small_network(monkeypatch):
    """The sample's two configurations, with a network that builds at once."""
    settings = {name: value for name, value in vars(tiny.TinyConfig).items() if name.isupper()}
    for name in ("NAME", "IMAGES_PER_GPU", "DETECTION_MIN_CONFIDENCE"):
        del settings[name]
    for name, value in (settings | {"NUM_CLASSES": 4}).items():
        monkeypatch.setattr(coco.CocoConfig, name, staticmethod(value) if callable(value) else value, raising=False)


@pytest.mark.slow
def test_trains_and_evaluates_from_the_command_line(small_network, server, tmp_path, monkeypatch, capsys):
    folder, logs = tmp_path / "data", tmp_path / "logs"
    shutil.make_archive(server / "zips" / "train2017", "zip", tmp_path / "source", "train2017")
    common = ["--dataset", str(folder), "--year", "2017", "--logs", str(logs)]
    coco.main(["train", *common, "--model", "none", "--download", "--epochs", "1", "--steps", "2", "--seed", "3"])
    (checkpoint,) = logs.glob("coco*/mask_rcnn_coco_0001.h5")
    assert "Checkpoints and logs are in" in capsys.readouterr().out
    output, results = tmp_path / "output", tmp_path / "results.json"
    coco.main(["evaluate", *common, "--model", "last", "--limit", "0", "--output", str(output)])
    coco.main(["evaluate", *common, "--model", str(checkpoint), "--results", str(results), "--eval-type", "bbox"])
    printed = capsys.readouterr().out
    assert f"Saved to {output}" in printed and f"Saved to {results}" in printed and "Weights:  last" in printed
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["images"] == 2 and {"bbox", "segm"} <= set(metrics)
    assert json.loads(results.read_text()) == json.loads((output / "results.json").read_text())


# ---- the picture


def test_the_picture_can_be_made_again(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "coco", coco)
    picture = load_script("picture")
    shutil.copytree(FOLDER / "example" / "annotations", tmp_path / "example" / "annotations")
    picture.main(tmp_path / "example", tmp_path / "picture.jpg")
    paths = tmp_path / "picture.jpg", FOLDER / "picture.jpg"
    made, kept = (np.array(PIL.Image.open(path).convert("RGB"), int) for path in paths)
    assert made.shape == kept.shape and np.abs(made - kept).mean() < 5
    assert (FOLDER / "picture.jpg").stat().st_size < 300_000
