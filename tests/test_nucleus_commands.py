"""The nucleus sample's commands: submissions, evaluation, and what a command line can get wrong."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tiny
from nucleus_files import FOLDER, Oracle, load_script, write_dataset

nucleus = load_script("nucleus")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data set of four training images, the third of which is kept for validation, and of two test images."""
    monkeypatch.setattr(nucleus, "VAL_IMAGE_IDS", ["c"])
    return write_dataset(tmp_path / "data")


# ---- detection and evaluation


def read_submission(path):
    """{image id: list of encodings} of a submission; an image without any has an empty list."""
    with open(path, newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["ImageId", "EncodedPixels"] and all(len(line) == 2 for line in lines)
    return {name: [rle.strip() for other, rle in lines if other == name and rle] for name, _ in lines}


def test_detect_writes_a_submission_and_pictures(folder, tmp_path, capsys):
    dataset = nucleus.make_dataset(folder, "stage1_train")
    doubled = lambda masks, _: np.concatenate([masks, masks[:, :, :1]], axis=-1)  # noqa: E731
    path = nucleus.detect(Oracle(dataset, doubled), folder, "stage1_train", tmp_path / "results" / "nucleus")
    made = sorted(os.listdir(os.path.dirname(path)))
    assert made == ["a.png", "b.png", "c.png", "d.png", "submit.csv"]
    assert "4 of 4 images" in capsys.readouterr().out
    submission = read_submission(path)
    for image_id in dataset.image_ids:
        masks, _ = dataset.load_mask(image_id)
        rows = submission[dataset.image_info[image_id]["id"]]
        decoded = np.stack([nucleus.rle_decode(rle, masks.shape) for rle in rows], axis=-1)
        assert np.array_equal(decoded, masks)  # nothing is left of the nucleus that was found twice
        with PIL.Image.open(Path(path).with_name(dataset.image_info[image_id]["id"] + ".png")) as picture:
            assert picture.size == masks.shape[1::-1] and picture.mode == "RGB"


def test_two_submissions_in_one_second(folder, tmp_path, monkeypatch):
    nothing = Oracle(nucleus.make_dataset(folder, "stage1_test"))

    class Still(nucleus.datetime.datetime):
        @classmethod
        def now(cls):
            return cls(2018, 4, 11, 23, 59, 59)

    monkeypatch.setattr(nucleus.datetime, "datetime", Still)
    paths = [nucleus.detect(nothing, folder, "stage1_test", tmp_path) for _ in range(2)]
    names = [os.path.basename(os.path.dirname(path)) for path in paths]
    assert names == ["submit_20180411T235959", "submit_20180412T000000"]
    assert [read_submission(path) for path in paths] == [{"t1": [], "t2": []}] * 2
    assert Path(paths[0]).read_text() == "ImageId,EncodedPixels\nt1,\nt2,\n"


def test_an_unreadable_image_is_named_and_the_others_are_done(folder, tmp_path, capsys):
    oracle = Oracle(nucleus.make_dataset(folder, "stage1_train"))
    (folder / "stage1_train" / "b" / "images" / "b.png").write_bytes(b"no picture")
    path = nucleus.detect(oracle, folder, "stage1_train", tmp_path)
    submission = read_submission(path)
    assert [len(submission[name]) for name in "abcd"] == [1, 0, 3, 2]
    out = capsys.readouterr().out
    assert "3 of 4 images" in out and "Left out: image 'b' of source 'nucleus'" in out


def test_without_a_readable_image_detection_fails(folder, tmp_path):
    shutil.rmtree(folder / "stage1_test" / "t2")
    oracle = Oracle(nucleus.make_dataset(folder, "stage1_test"))
    (folder / "stage1_test" / "t1" / "images" / "t1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"1 of 1 images cannot be read:\n  image 't1'.*$"):
        nucleus.detect(oracle, folder, "stage1_test", tmp_path)


def test_a_stopped_detection_leaves_no_submission(folder, tmp_path):
    oracle = Oracle(nucleus.make_dataset(folder, "stage1_train"))
    oracle.answers[2] = np.zeros((70, 90), bool)  # what no image has
    with pytest.raises(IndexError):
        nucleus.detect(oracle, folder, "stage1_train", tmp_path)
    (made,) = tmp_path.glob("submit_*")
    assert not (made / "submit.csv").exists()
    assert (made / "submit.csv.part").read_text().count("\n") == 1 + 1 + 2


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        nucleus.new_folder(tmp_path / "file")


def test_evaluation_of_the_truth_is_perfect(folder, capsys):
    oracle = Oracle(nucleus.make_dataset(folder, "stage1_train"))
    result = nucleus.evaluate(oracle, folder, "stage1_train")
    assert result["segm"]["AP"] > 0.99 and result["competition"] == 1 and result["images"] == 4
    assert "stage1_train, masks: AP50 1.000, AP 1.000, score of the competition 1.000" in capsys.readouterr().out


def test_evaluation_counts_what_was_found_too_much(folder):
    """One of two nuclei is found, and one where none is."""
    dataset = nucleus.make_dataset(folder, "stage1_train")
    oracle = Oracle(dataset, lambda masks, _: np.stack([masks[:, :, 0], np.roll(masks[:, :, 0], 30, axis=1)], axis=-1))
    expected = [1 / (1 + 1 + missed) for missed in (0, 1, 2, 1)]
    assert nucleus.evaluate(oracle, folder, "stage1_train")["competition"] == pytest.approx(np.mean(expected))


def test_evaluation_without_any_detection(folder):
    oracle = Oracle(nucleus.make_dataset(folder, "val"), lambda masks, _: masks[:, :, :0])
    result = nucleus.evaluate(oracle, folder, "val")
    assert result["segm"]["AP50"] == 0 and result["competition"] == 0 and result["objects"] == 3


# ---- command line


def checkpoint(logs):
    """Makes a file that looks like a checkpoint."""
    run = logs / "nucleus20260101T1200"
    run.mkdir(exist_ok=True)
    (run / "mask_rcnn_nucleus_0001.h5").touch()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train --weights none", "required: --dataset, --subset"),
        ("trian --weights none --dataset {data} --subset train", "Did you mean 'train'"),
        ("train --weights none --dataset {data}", "required: --subset"),
        ("train --weights none --dataset {data} --subset stage1_tran", "Did you mean 'stage1_train'"),
        ("train --weights none --dataset {data} --subset stage1_test", "train needs masks, and stage1_test has none"),
        ("evaluate --weights last --dataset {data} --subset stage1_test", "evaluate needs masks"),
        ("detect --weights last --dataset {data}/no --subset val", "no: there is no such folder"),
        ("detect --weights last --dataset {data} --subset stage2_test", "stage2_test: there is no such folder"),
        ("detect --weights coco --dataset {data} --subset val", "detect needs weights that know nuclei"),
        ("detect --weights none --dataset {data} --subset val", "detect needs trained weights"),
        ("detect --weights no.h5 --dataset {data} --subset val", "no.h5: there is no such file"),
        ("train --weights none --dataset {data} --subset train --output x", "--output is for detect"),
        ("detect --weights last --dataset {data} --subset val --output {data}/file", "file"),
        ("detect --weights last --dataset {data} --subset val --steps 3", "--steps is for train"),
        ("train --weights none --dataset {data} --subset stage1_train", "missing are .*e.png"),
    ],
)
def test_mistakes_show_before_anything_slow(folder, arguments, message, capsys):
    (folder / "file").write_text("")
    checkpoint(folder)
    if arguments.endswith("stage1_train"):
        (folder / "stage1_train" / "e").mkdir()
    with pytest.raises(SystemExit) as stop:
        nucleus.parse_arguments([*arguments.format(data=folder).split(), "--logs", str(folder)])
    assert stop.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_missing_libraries_show_before_anything_slow(folder, monkeypatch, capsys):
    checkpoint(folder)
    for library, package, command in (("imgaug", "imaug", "train --weights none"),
                                      ("pycocotools.coco", "pycocotools", "evaluate --weights last")):  # fmt: skip
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(SystemExit):
            nucleus.parse_arguments(
                [*command.split(), "--dataset", str(folder), "--subset", "train", "--logs", str(folder)]
            )
        assert f"pip install {package}" in capsys.readouterr().err


def test_it_starts_in_any_folder_and_without_keras(tmp_path, run_python):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([sys.executable, str(FOLDER / "nucleus.py"), "--help"], cwd=tmp_path, env=environment,
                            capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
    assert result.returncode == 0 and "--subset stage1_test" in result.stdout
    modules = "('keras', 'tensorflow', 'matplotlib', 'imgaug', 'pycocotools')"
    code = f"import sys; sys.path.append({str(FOLDER)!r}); import nucleus\n"
    code += "try: nucleus.parse_arguments(['detect'])\nexcept SystemExit: pass\n"
    code += f"print([m for m in {modules} if m in sys.modules])"
    assert run_python(code).strip() == "[]"


class TinyNucleusConfig(tiny.TinyConfig):
    """The sample's way of cropping and enlarging, for a network that trains in seconds."""

    NAME = "nucleus"
    NUM_CLASSES = 2
    IMAGE_RESIZE_MODE = "crop"
    IMAGE_MIN_SCALE = 2.0


class TinyNucleusInferenceConfig(TinyNucleusConfig):
    IMAGES_PER_GPU = 1
    IMAGE_RESIZE_MODE = "pad64"


@pytest.mark.slow
def test_all_commands_in_turn(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(nucleus, "NucleusConfig", TinyNucleusConfig)
    monkeypatch.setattr(nucleus, "NucleusInferenceConfig", TinyNucleusInferenceConfig)
    monkeypatch.setattr(nucleus, "SCHEDULE", [("heads", 1, 1), ("all", 2, 1)])
    shared = ["--dataset", str(folder), "--logs", str(tmp_path / "logs")]
    weights = str(tmp_path / "tiny.h5")
    from mrcnn import model as modellib

    modellib.MaskRCNN("training", TinyNucleusConfig(), str(tmp_path)).keras_model.save_weights(weights)
    nucleus.main(["train", "--weights", weights, "--subset", "train", *shared])
    out = capsys.readouterr().out
    assert "layers: heads, up to epoch 1" in out and "all layers, up to epoch 2" in out
    (checkpoint,) = tmp_path.glob("logs/nucleus*/mask_rcnn_nucleus_0002.h5")
    nucleus.main(["detect", "--weights", "last", "--subset", "stage1_test", *shared, "--output", str(tmp_path / "out")])
    (path,) = tmp_path.glob("out/submit_*/submit.csv")
    for rows in read_submission(path).values():
        assert sum(nucleus.rle_decode(rle, (70, 90)).astype(int) for rle in rows).max() <= 1
    assert sorted(read_submission(path)) == ["t1", "t2"]
    nucleus.main(["evaluate", "--weights", str(checkpoint), "--subset", "val", *shared])
    assert "val, masks: AP50 0." in capsys.readouterr().out


def test_the_picture_of_the_readme_can_be_made_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    picture = load_script("picture")
    monkeypatch.setattr(picture, "FOLDER", tmp_path)
    picture.main()
    assert (tmp_path / "picture.png").stat().st_size < 300_000
    with PIL.Image.open(tmp_path / "picture.png") as made, PIL.Image.open(FOLDER / "picture.png") as kept:
        assert made.size == kept.size
