"""The Balloon sample: data sets from VIA files, colour splash, and its command line on a tiny network."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import scripts
import skimage.draw
import test_video
import tiny
from test_via import RECT, TRIANGLE, region, write

from mrcnn import COCO_CLASS_NAMES, utils
from mrcnn import model as modellib
from mrcnn.config import Config

FOLDER = Path(__file__).resolve().parents[1] / "samples" / "balloon"
load_script = functools.partial(scripts.load_script, FOLDER)

balloon = load_script("balloon")


class TinyBalloonConfig(tiny.TinyConfig):
    NAME = "balloon"
    NUM_CLASSES = 1 + 1


def draw_photos(folder, count, kinds=(None,)):
    """Photos of 64 pixels with a disk each, annotated as a circle; the kinds take turns."""
    images = {}
    for number in range(count):
        kind = kinds[number % len(kinds)]
        circle = {"name": "circle", "cx": 20 + 5 * number, "cy": 30, "r": 12}
        images[f"{number}.png"] = [region(circle, **({"kind": kind} if kind else {}))]
    write(folder, images, size=(64, 64))
    for number in range(count):
        image = np.full((64, 64, 3), 40, np.uint8)
        image[skimage.draw.disk((30, 20 + 5 * number), 12, shape=(64, 64))] = (250, 60, 90)
        PIL.Image.fromarray(image).save(folder / f"{number}.png")


@pytest.fixture
def dataset_dir(tmp_path):
    """A data set of 4 and 2 photos, as text."""
    for subset, count in (("train", 4), ("val", 2)):
        draw_photos(tmp_path / "balloon" / subset, count)
    return str(tmp_path / "balloon")


# ---- configuration and data set


def test_the_settings_are_the_originals():
    settings, defaults = balloon.BalloonConfig().to_dict(), Config().to_dict()
    changed = {name: value for name, value in settings.items() if not np.array_equal(value, defaults[name])}
    assert changed.pop("IMAGE_META_SIZE", 14) == 14
    assert changed == {"NAME": "balloon", "NUM_CLASSES": 2, "STEPS_PER_EPOCH": 100, "DETECTION_MIN_CONFIDENCE": 0.9}
    assert settings["IMAGES_PER_GPU"] == 2
    root = FOLDER.parents[1]
    paths = balloon.ROOT_DIR, balloon.COCO_WEIGHTS_PATH, balloon.DEFAULT_LOGS_DIR
    assert paths == (str(root), str(root / "mask_rcnn_coco.h5"), str(root / "logs"))


def test_images_added_by_hand_have_the_masks_of_the_original():
    """Numbers of the original, of an image that was added without class ids."""
    dataset = balloon.BalloonDataset()
    dataset.add_class("balloon", 1, "balloon")
    polygons = [
        {"name": "polygon", "all_points_x": [2, 14, 20, 5], "all_points_y": [1, 3, 12, 17]},
        {"name": "polygon", "all_points_x": [20, 26, 23], "all_points_y": [4, 9, 19]},
    ]
    dataset.add_image("balloon", image_id="x", path=None, width=27, height=20, polygons=polygons)
    dataset.prepare()
    masks, class_ids = dataset.load_mask(0)
    assert masks.shape == (20, 27, 2) and masks.dtype == bool
    assert class_ids.tolist() == [1, 1] and class_ids.dtype == np.int32
    expected = [
        "000000000000007c00000ffe0001ffe0003ffe0007ffc0007ffc000fffc001fff8003fff8007fff8007fff000fff0001ff00"
        "003f00000700000000000000000000000000",
        "000000000000000000000000000000000000000800000180000038000007800000f800000f000001e000003c000007000000"
        "e000000c0000010000002000000400000000",
    ]
    assert [np.packbits(masks[:, :, n]).tobytes().hex() for n in range(2)] == expected


def test_a_folder_is_loaded(tmp_path):
    write(tmp_path / "train", {"a.png": [region(), region(RECT)], "b.png": {"0": region()}, "c.png": []})
    dataset = balloon.load_subset(str(tmp_path), "train")
    assert dataset.class_names == ["BG", "balloon"] and dataset.num_images == 2
    info = dataset.image_info[0]
    assert (info["id"], info["width"], info["height"]) == ("a.png", 27, 20)
    assert info["polygons"] == [TRIANGLE, RECT] and info["class_ids"] == [1, 1]
    assert dataset.image_reference(0) == info["path"] == str(tmp_path / "train" / "a.png")
    masks, class_ids = dataset.load_mask(0)
    assert masks.shape == (*dataset.load_image(0).shape[:2], 2) and class_ids.tolist() == [1, 1]
    assert masks[:, :, 1].sum() == 30
    kept = balloon.BalloonDataset()
    kept.load_balloon(str(tmp_path), "train", keep_empty=True)
    kept.prepare()
    masks, class_ids = kept.load_mask(2)
    assert masks.shape == (20, 27, 0) and class_ids.shape == (0,) and class_ids.dtype == np.int32
    with pytest.raises(ValueError, match="subset must be 'train' or 'val'; received 'test'"):
        kept.load_balloon(str(tmp_path), "test")


def test_classes_come_from_an_attribute(tmp_path):
    regions = [region(kind="kite"), region(kind="balloon"), region(kind="kite")]
    write(tmp_path / "train", {"a.png": regions})
    write(tmp_path / "val", {"b.png": [region(kind="kite")]})
    train = balloon.load_subset(str(tmp_path), "train")
    assert train.class_names == ["BG", "balloon", "kite"] and train.load_mask(0)[1].tolist() == [2, 1, 2]
    val = balloon.load_subset(str(tmp_path), "val", classes=train.balloon_classes())
    assert val.class_names == train.class_names and val.load_mask(0)[1].tolist() == [2]
    ordered = balloon.load_subset(str(tmp_path), "train", "kind", ["kite", "balloon"])
    assert ordered.class_names[1:] == ["kite", "balloon"] and ordered.load_mask(0)[1].tolist() == [1, 2, 1]
    with pytest.raises(ValueError, match=r"a\.png, region 0: unknown class 'kite'; known are balloon, bird"):
        balloon.load_subset(str(tmp_path), "train", classes=["balloon", "bird"])
    # Both folders in one data set: the classes of the first hold for the second.
    train.load_balloon(str(tmp_path), "val")
    train.prepare()
    assert train.num_classes == 3 and train.load_mask(1)[1].tolist() == [2]


def test_classes_are_numbered_anew_beside_other_sources(tmp_path):
    write(tmp_path / "train", {"a.png": [region()]})
    dataset = balloon.BalloonDataset()
    dataset.add_class("birds", 1, "bird")
    dataset.add_image("birds", 0, None)
    dataset.load_balloon(str(tmp_path), "train")
    dataset.prepare()
    assert dataset.class_names == ["BG", "bird", "balloon"] and dataset.load_mask(1)[1].tolist() == [2]
    assert dataset.load_mask(0)[0].shape == (0, 0, 0) and dataset.image_reference(0) == ""


def test_subclasses_work_too(tmp_path):
    class Mine(balloon.BalloonDataset):
        def load_mask(self, image_id):
            return super().load_mask(image_id)

    write(tmp_path / "train", {"a.png": [region()]})
    dataset = Mine()
    dataset.load_balloon(str(tmp_path), "train")
    dataset.add_image("other", 1, None)
    dataset.prepare()
    assert dataset.load_mask(0)[0].any() and dataset.load_mask(1)[0].size == 0


def test_an_unreadable_photo_is_named_by_its_mask(tmp_path):
    write(tmp_path / "train", {"a.png": [region()], "b.png": [region()]})
    (tmp_path / "train" / "b.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"b\.png"):
        dataset = balloon.load_subset(str(tmp_path), "train")
    with pytest.raises(ValueError, match=r"image 'b.png' .* cannot be read"):
        dataset.load_mask(1)


# ---- colour splash


def test_a_splash_has_the_pixels_of_the_original():
    """Numbers of the original; in `RandomState(4)` the image comes first."""
    yy, xx = np.mgrid[0:20, 0:27]
    circles = ((6, 7, 5), (9, 10, 4), (15, 20, 4), (3, 24, 2))
    masks = np.stack([(yy - cy) ** 2 + (xx - cx) ** 2 < r * r for cy, cx, r in circles], -1)
    image = np.random.RandomState(4).randint(0, 256, (20, 27, 3)).astype(np.uint8)
    before = image.copy()
    splash = balloon.color_splash(image, masks)
    inside = masks.any(axis=-1)
    assert np.array_equal(splash[inside], image[inside]) and np.array_equal(image, before)
    assert splash[~inside][:5].tolist() == [[grey] * 3 for grey in (163, 141, 165, 88, 106)]
    assert np.array_equal(balloon.color_splash(image, masks.astype(np.int32)), splash)
    for nothing in (masks[:, :, :0], np.zeros((0, 0, 0), bool)):
        splash = balloon.color_splash(image, nothing)
        assert splash.shape == (20, 27, 3) and splash.dtype == np.uint8 and np.ptp(splash, axis=-1).max() == 0


def test_grey_and_transparent_images_splash_too():
    mask = np.zeros((4, 5, 1), bool)
    mask[1:3] = True
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
    splash = balloon.color_splash(grey, mask)
    assert np.array_equal(splash[1:3], np.stack([grey] * 3, -1)[1:3])
    assert splash.shape == (4, 5, 3) and np.abs(splash[..., 0] - grey.astype(int)).max() <= 1
    colours = np.random.default_rng(0).integers(0, 256, (4, 5, 4), dtype=np.uint8)
    assert np.array_equal(balloon.color_splash(colours, mask), balloon.color_splash(colours[..., :3], mask))


class Finder:
    """In a model's place: it finds what is red."""

    def detect(self, images):
        results = []
        for image in images:
            mask = (image[..., 0].astype(int) > image[..., 2] + 100)[..., None]
            found = slice(0, int(mask.any()))
            results.append({
                "rois": utils.extract_bboxes(mask)[found], "class_ids": np.ones(1, np.int32)[found],
                "scores": np.full(1, 0.75)[found], "masks": mask[..., found],
            })  # fmt: skip
        return results


def test_splash_of_a_photo_and_of_a_video(tmp_path, dataset_dir, capsys):
    photo = os.path.join(dataset_dir, "train", "0.png")
    path = balloon.detect_and_color_splash(Finder(), image_path=photo, output=str(tmp_path / "out"))
    with PIL.Image.open(path) as image:
        splash = np.asarray(image)
    assert splash[30, 20].tolist() == [250, 60, 90] and np.ptp(splash[5, 60]) == 0
    assert os.path.basename(path).startswith("splash_") and f"Saved to {path}" in capsys.readouterr().out
    source = test_video.write(tmp_path / "in.mp4", [test_video.frame_of(n) for n in range(3)])
    path = balloon.detect_and_color_splash(Finder(), video_path=str(source), output=str(tmp_path / "out"))
    frames, _, _ = test_video.read(path)
    assert len(frames) == 3
    for frame in frames:
        assert frame[30, 10, 0] > 170 and frame[30, 10, 2] < 70  # red is kept
        assert np.ptp(frame[30, 50].astype(int)) < 12  # blue turned grey
    assert sorted(os.path.splitext(name)[1] for name in os.listdir(tmp_path / "out")) == [".mp4", ".png"]


def test_files_go_to_the_working_directory(tmp_path, monkeypatch, dataset_dir):
    monkeypatch.chdir(tmp_path)
    balloon.detect_and_color_splash(Finder(), os.path.join(dataset_dir, "train", "0.png"))
    assert len(list(tmp_path.glob("splash_*.png"))) == 1


def test_detect_draws_and_lists_objects(tmp_path, dataset_dir, capsys):
    names = ["BG", "balloon"]
    photo = os.path.join(dataset_dir, "train", "0.png")
    path = balloon.detect_and_draw(Finder(), names, image_path=photo, output=str(tmp_path))
    with PIL.Image.open(path) as image:
        drawn = np.asarray(image)
    with PIL.Image.open(photo) as image:
        assert drawn.shape == (64, 64, 3) and (drawn != np.asarray(image)).any()
    text = capsys.readouterr().out
    assert "balloon" in text and "score 0.750  box (y1, x1, y2, x2) (19, 9, 42, 32)" in text
    assert "1 objects in 1 images" in text
    path = balloon.detect_and_draw(Finder(), names, image_path=os.path.dirname(photo), output=str(tmp_path))
    assert sorted(os.listdir(path)) == ["0.png", "1.png", "2.png", "3.png"]
    assert "4 objects in 4 images" in capsys.readouterr().out
    source = test_video.write(tmp_path / "in.mp4", [test_video.frame_of(n) for n in range(3)])
    assert balloon.detect_and_draw(Finder(), names, video_path=str(source), output=str(tmp_path)).endswith(".mp4")
    text = capsys.readouterr().out
    assert "3 objects in 3 frames" in text and "score" not in text


def test_the_picture_shows_what_via_knows(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "balloon", balloon)
    picture = load_script("picture")
    dataset = picture.load_coffee(str(tmp_path))
    assert dataset.class_names == ["BG", "cup", "saucer"]
    monkeypatch.setattr(picture, "FOLDER", tmp_path)
    picture.main()
    with PIL.Image.open(tmp_path / "picture.jpg") as made, PIL.Image.open(FOLDER / "picture.jpg") as kept:
        made, kept = (np.asarray(image.convert("RGB")).astype(int) for image in (made, kept))
    assert np.abs(made - kept).mean() < 3 and (FOLDER / "picture.jpg").stat().st_size < 300_000


# ---- training and evaluation


@pytest.mark.slow
def test_training_takes_the_folder_as_an_argument(model_dir, dataset_dir, tmp_path, capsys):
    model = modellib.MaskRCNN("training", TinyBalloonConfig(), model_dir)
    balloon.train(model, dataset_dir, epochs=1, layers="all")
    assert Path(model.find_last()).name == "mask_rcnn_balloon_0001.h5"
    assert "train: 4 images, 4 objects: balloon" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="train: there is no such folder"):
        balloon.train(model, str(tmp_path / "nowhere"))
    draw_photos(Path(dataset_dir) / "train", 4, kinds=("kite", "bird"))
    draw_photos(Path(dataset_dir) / "val", 2, kinds=("kite", "bird"))
    with pytest.raises(ValueError, match="NUM_CLASSES is 2, but .* 3 classes"):
        balloon.train(model, dataset_dir, epochs=2)


def test_training_without_a_folder_names_the_usual_one(model_dir, monkeypatch):
    defaults = balloon.train.__defaults__
    assert defaults[0] == os.path.join(balloon.ROOT_DIR, "datasets", "balloon") and defaults[1:3] == (30, "heads")


@pytest.fixture
def tiny_commands(monkeypatch, tmp_path):
    """Runs the command line on a tiny network, with logs in a folder of the test."""
    monkeypatch.setattr(balloon, "BalloonConfig", TinyBalloonConfig)
    return lambda *arguments: balloon.main([*arguments, "--logs", str(tmp_path / "logs")])


@pytest.mark.slow
def test_all_commands_work_together(tiny_commands, dataset_dir, tmp_path, capsys):
    pytest.importorskip("pycocotools")
    draw_photos(Path(dataset_dir) / "train", 4, kinds=("kite", "balloon"))
    draw_photos(Path(dataset_dir) / "val", 2, kinds=("kite",))
    tiny_commands("train", "--weights", "none", "--dataset", dataset_dir, "--epochs", "1", "--steps", "1")
    (checkpoint,) = tmp_path.glob("logs/balloon*/mask_rcnn_balloon_0001.h5")
    assert "train: 4 images, 4 objects: balloon, kite" in capsys.readouterr().out
    tiny_commands("evaluate", "--weights", "last", "--dataset", dataset_dir)
    text = capsys.readouterr().out
    assert "2 images, 2 objects" in text and "kite" in text and "DETECTION_MIN_CONFIDENCE" not in text
    photo = os.path.join(dataset_dir, "val", "0.png")
    output = ("--output", str(tmp_path / "out"))
    for weights in ("last", str(checkpoint)):
        with pytest.raises(ValueError, match=r"trained on 2 classes, where 1 are expected .balloon.: .*--classes"):
            tiny_commands("splash", "--weights", weights, "--image", photo, *output)
    tiny_commands("splash", "--weights", "last", "--image", photo, "--classes", "balloon,kite", *output)
    tiny_commands("detect", "--weights", str(checkpoint), "--image", photo, "--dataset", dataset_dir, *output)
    assert sorted(name[:7] for name in os.listdir(tmp_path / "out")) == ["detect_", "splash_"]


def test_coco_weights_know_cocos_classes(dataset_dir, tmp_path):
    photo = os.path.join(dataset_dir, "val", "0.png")
    args = balloon.parse_arguments(["detect", "--weights", "coco", "--image", photo])
    assert balloon.find_classes(args) == list(COCO_CLASS_NAMES[1:])
    run = tmp_path / "balloon20260101T1200"
    run.mkdir()
    (run / "mask_rcnn_balloon_0001.h5").touch()
    args = balloon.parse_arguments(["detect", "--weights", "last", "--image", photo, "--logs", str(tmp_path)])
    assert balloon.find_classes(args) == ["balloon"]
    args = balloon.parse_arguments(["train", "--weights", "coco", "--dataset", dataset_dir])
    assert balloon.find_classes(args) == ["balloon"]


def test_what_is_wrong_with_the_validation_shows_before_the_model(dataset_dir, tmp_path):
    point = region({"name": "point", "cx": 1, "cy": 2})
    via = {"0.png": {"filename": "0.png", "regions": [point]}}
    (Path(dataset_dir) / "val" / "via_region_data.json").write_text(json.dumps(via))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mask_rcnn_balloon_0001.h5").touch()
    for command in ("train", "evaluate"):
        args = balloon.parse_arguments([command, "--weights", "last", "--dataset", dataset_dir, "--logs",
                                        str(tmp_path)])  # fmt: skip
        with pytest.raises(ValueError, match="val.*0.png, region 0 is a point"):
            balloon.find_classes(args)
    args = balloon.parse_arguments(["evaluate", "--weights", "last", "--dataset", dataset_dir, "--logs", str(tmp_path),
                                    "--subset", "train"])  # fmt: skip
    assert balloon.find_classes(args) == ["balloon"]


# ---- command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "<command>"),
        ("trian --weights coco", "Did you mean 'train'"),
        ("train --dataset DATA", "--weights"),
        ("train --weights coco --dataset no/such/folder", "no/such/folder: there is no such folder"),
        ("train --weights coco --dataset DATA/train", "DATA/train/train: there is no such folder"),
        ("train --weights missing.h5 --dataset DATA", "missing.h5: there is no such file"),
        ("train --weights coco --dataset DATA --image cat.png", "--image is for splash and detect"),
        ("train --weights coco --dataset DATA --output x", "--output is for splash and detect"),
        ("train --weights coco --dataset DATA --subset val", "--subset is for evaluate"),
        ("train --weights coco --dataset DATA --classes a,,b", "different names"),
        ("train --weights coco --dataset DATA --epochs 0", "1 or more"),
        ("evaluate --weights coco --dataset DATA", "weights that were trained on the data set"),
        ("evaluate --weights none --dataset DATA", "needs trained weights"),
        ("evaluate --weights coco --dataset DATA --subset test", "test"),
        ("splash --weights coco", "splash needs --image or --video"),
        ("splash --weights coco --image DATA/train/0.png --video a.mp4", "only one of them"),
        ("splash --weights coco --image missing.png", "--image missing.png: there is no such file"),
        ("detect --weights coco --video DATA", "is a folder, not a file"),
        ("detect --weights coco --image htp://server/a.png", "begins with http://"),
        ("detect --weights coco --image DATA/train/0.png --output DATA/train/0.png", "is no folder"),
        ("detect --weights coco --image DATA/train/0.png --steps 5", "--steps is for train"),
    ],
)
def test_the_command_line_refuses_what_cannot_work(arguments, message, capsys, dataset_dir):
    with pytest.raises(SystemExit) as stop:
        balloon.parse_arguments(arguments.replace("DATA", dataset_dir).split())
    assert stop.value.code == 2
    assert message.replace("DATA", dataset_dir) in capsys.readouterr().err


def test_training_needs_a_data_set(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(balloon, "DEFAULT_DATASET_DIR", str(tmp_path / "datasets"))
    with pytest.raises(SystemExit):
        balloon.parse_arguments(["train", "--weights", "coco"])
    assert "train needs --dataset" in capsys.readouterr().err
    for subset in ("train", "val"):
        os.makedirs(tmp_path / "datasets" / subset)
    assert balloon.parse_arguments(["train", "--weights", "coco"]).dataset == str(tmp_path / "datasets")


def run_script(*arguments, cwd):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, FOLDER / "balloon.py", *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def test_bad_files_show_before_anything_slow(tmp_path, dataset_dir, run_python):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    cases = [("--video", "text.mp4", "cannot be read as a video"), ("--image", "empty", "no images")]
    for flag, name, message in cases:
        result = run_script("splash", "--weights", "coco", flag, name, cwd=tmp_path)
        assert result.returncode == 1 and message in result.stderr and "Traceback" not in result.stderr
    path = Path(dataset_dir) / "train" / "via_region_data.json"
    point = region({"name": "point", "cx": 1, "cy": 2})
    path.write_text(json.dumps({"0.png": {"filename": "0.png", "regions": [point]}}))
    result = run_script("train", "--weights", "coco", "--dataset", dataset_dir, cwd=tmp_path)
    assert result.returncode == 1 and "balloon.py: " in result.stderr and "0.png, region 0 is a point" in result.stderr
    assert "Command:  train" in result.stdout
    code = f"import sys; sys.path.append({str(FOLDER)!r}); import balloon; print({{'keras', 'av'}} & set(sys.modules))"
    assert run_python(code).strip() == "set()"
