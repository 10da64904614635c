"""The Shapes sample: what it draws, its two configurations, its command line, and that it learns."""

import functools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scripts
import skimage.io
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn import utils

FOLDER = Path(__file__).resolve().parents[1] / "samples" / "shapes"
SEEDS = st.integers(0, 2**32 - 1)
load_script = functools.partial(scripts.load_script, FOLDER)

shapes = load_script("shapes")


def boxes_of(recipe):
    return np.array([(y - s, x - s, y + s, x + s) for _, _, (x, y, s) in recipe])


def made_of(*recipe, height=96, width=112):
    """A data set of one image with the given shapes."""
    dataset = shapes.ShapesDataset()
    dataset.load_shapes(1, height, width, seed=0)
    dataset.prepare()
    dataset.image_info[0].update(bg_color=np.array([1, 2, 3]), shapes=list(recipe))
    return dataset


# ---- the generator


def test_draws_what_the_original_drew():
    """Numbers of the original: recipes, sums of pixels and areas of masks after `random.seed(11)`."""
    state = random.getstate()
    random.seed(11)
    dataset = shapes.ShapesDataset()
    dataset.load_shapes(4, 96, 112)
    dataset.prepare()
    random.setstate(state)
    assert [info["shapes"] for info in dataset.image_info] == [
        [("square", (243, 95, 48), (58, 48, 21)), ("square", (21, 202, 231), (40, 61, 24))],
        [("square", (123, 15, 237), (76, 40, 24))],
        [("square", (43, 234, 142), (90, 46, 20)), ("triangle", (130, 161, 117), (56, 52, 20)),
         ("square", (55, 205, 55), (57, 74, 23)), ("square", (8, 0, 109), (26, 33, 23))],
        [("triangle", (101, 138, 172), (59, 25, 22))],
    ]  # fmt: skip
    assert [info["bg_color"].tolist() for info in dataset.image_info][::3] == [[231, 238, 231], [192, 203, 214]]
    images = [dataset.load_image(i) for i in dataset.image_ids]
    assert [int(image.sum()) for image in images] == [6645304, 1476594, 3384922, 6311754]
    masks = [dataset.load_mask(i)[0] for i in dataset.image_ids]
    assert [m.sum((0, 1)).tolist() for m in masks] == [[925, 2401], [2401], [1505, 202, 2019, 2209], [1193]]


@given(seed=SEEDS, height=st.integers(80, 200), width=st.integers(41, 200))
@settings(max_examples=40, deadline=None)
def test_recipes_keep_the_rules(seed, height, width):
    dataset = shapes.ShapesDataset()
    dataset.load_shapes(5, height, width, seed)
    for info in dataset.image_info:
        assert 1 <= len(info["shapes"]) <= 4
        for kind, color, (x, y, size) in info["shapes"]:
            assert kind in ("square", "circle", "triangle") and all(0 <= c <= 255 for c in color)
            assert 20 <= x < width - 20 and 20 <= y < height - 20 and 20 <= size <= height // 4
        overlaps = utils.compute_overlaps(*[boxes_of(info["shapes"])] * 2)
        assert np.triu(overlaps, 1).max() <= 0.3


@given(seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_masks_are_what_the_image_shows(seed):
    dataset = shapes.make_dataset(1, seed)
    image, (masks, class_ids) = dataset.load_image(0), dataset.load_mask(0)
    info = dataset.image_info[0]
    assert masks.shape == (128, 128, len(info["shapes"])) and masks.dtype == bool
    assert class_ids.dtype == np.int32
    assert [dataset.class_names[i] for i in class_ids] == [kind for kind, _, _ in info["shapes"]]
    assert masks.sum(axis=-1).max() == 1  # disjoint
    drawn = np.full((128, 128, 3), info["bg_color"])
    for index, (_, color, _) in enumerate(info["shapes"]):
        drawn[masks[:, :, index]] = color
    assert image.dtype == np.uint8 and np.array_equal(image, drawn)


def test_one_seed_draws_the_same_and_another_does_not():
    first, again, other = (shapes.make_dataset(20, seed).image_info for seed in (1, 1, 2))
    recipes = [[info["shapes"] for info in infos] for infos in (first, again, other)]
    assert recipes[0] == recipes[1] != recipes[2]


def test_without_a_seed_pythons_generator_draws():
    state = random.getstate()
    random.seed(5)
    first = shapes.make_dataset(3)
    random.seed(5)
    again = shapes.make_dataset(3)
    random.setstate(state)
    assert [i["shapes"] for i in first.image_info] == [i["shapes"] for i in again.image_info]


def test_later_shapes_hide_earlier_ones():
    dataset = made_of(("square", (9, 9, 9), (40, 40, 20)), ("circle", (5, 5, 5), (40, 40, 20)))
    masks, _ = dataset.load_mask(0)
    assert masks[40, 40].tolist() == [False, True] and masks[20, 20].tolist() == [True, False]
    assert masks.any(-1).sum() == 41 * 41
    assert dataset.load_image(0)[40, 40].tolist() == [5, 5, 5]


def test_the_later_of_two_overlapping_shapes_stays(monkeypatch):
    dataset = shapes.ShapesDataset()
    recipe = iter([("square", (0, 0, 0), (40, 40, 20)), ("circle", (1, 1, 1), (44, 40, 20))])
    monkeypatch.setattr(dataset, "random_shape", lambda *_: next(recipe))

    class Two(random.Random):
        def randint(self, low, high):
            return 2

    assert dataset.random_image(128, 128, Two())[1] == [("circle", (1, 1, 1), (44, 40, 20))]


@pytest.mark.parametrize(
    ("kind", "area", "box"),
    [
        ("square", 41 * 41, (30, 40, 71, 81)),
        ("circle", 1257, (30, 40, 71, 81)),  # lattice points in a circle of radius 20
        ("triangle", None, (30, 36, 71, 84)),  # 20 / sin(60 degrees) = 23.1 to both sides, fractions cut off
    ],
)
def test_sizes_of_shapes(kind, area, box):
    masks, _ = made_of((kind, (0, 0, 0), (60, 50, 20))).load_mask(0)
    assert utils.extract_bboxes(masks)[0].tolist() == list(box)
    assert area is None or masks.sum() == area
    if kind == "triangle":
        widths = masks[30:71, :, 0].sum(axis=1)
        assert widths[0] == 1 and widths[-1] == 48 and (np.diff(widths) >= 0).all()


@pytest.mark.parametrize("kind", ["square", "circle", "triangle"])
def test_shapes_are_cut_off_at_the_border(kind):
    whole, _ = made_of((kind, (0, 0, 0), (60, 60, 30)), height=160, width=160).load_mask(0)
    cut, _ = made_of((kind, (0, 0, 0), (100, 100, 30)), height=120, width=120).load_mask(0)
    assert np.array_equal(cut[40:], np.pad(whole[:80, :80], ((0, 0), (40, 0), (0, 0)))) and not cut[:40].any()
    corner, _ = made_of((kind, (0, 0, 0), (20, 20, 30)), height=120, width=120).load_mask(0)
    assert corner[0, 20] and corner[50, 20] and not corner[51:].any()


def test_an_unknown_shape_is_named():
    with pytest.raises(ValueError, match="'hexagon'"):
        shapes.ShapesDataset().draw_shape(np.zeros((50, 50)), "hexagon", (20, 20, 20), 1)


def test_images_too_small_for_shapes_are_refused():
    with pytest.raises(ValueError, match="height=64, width=128"):
        shapes.ShapesDataset().load_shapes(1, 64, 128)


def test_images_can_be_added_in_parts():
    dataset = shapes.ShapesDataset()
    dataset.load_shapes(2, 128, 128, seed=1)
    dataset.load_shapes(3, 96, 128, seed=1)
    dataset.prepare()
    assert dataset.num_images == len(dataset.image_from_source_map) == 5 and dataset.num_classes == 4
    assert dataset.load_image(4).shape == (96, 128, 3)


def test_an_image_says_what_it_shows():
    dataset = made_of(("square", (0, 0, 0), (60, 50, 20)))
    dataset.add_image("else", "a", None)
    assert "square of size 20 at (60, 50)" in dataset.image_reference(0)
    assert dataset.image_reference(1) == ""


def test_what_is_wholly_hidden_is_not_part_of_the_truth():
    dataset = made_of(
        ("square", (0, 0, 0), (60, 50, 20)), ("square", (9, 9, 9), (60, 50, 20)), ("circle", (9, 0, 0), (25, 30, 20))
    )
    true = shapes.truth(dataset, 0)
    assert dataset.load_mask(0)[0].shape[-1] == 3
    assert true["class_ids"].tolist() == [1, 2] and true["masks"].shape == (96, 112, 2) and len(true["rois"]) == 2


# ---- configurations


def test_the_full_configuration_has_the_originals_settings():
    config = shapes.ShapesConfig()
    assert (config.NAME, config.BATCH_SIZE, config.NUM_CLASSES) == ("shapes", 8, 4)
    assert config.IMAGE_SHAPE.tolist() == [128, 128, 3] and config.BACKBONE == "resnet101"
    assert config.RPN_ANCHOR_SCALES == (8, 16, 32, 64, 128)
    assert (config.TRAIN_ROIS_PER_IMAGE, config.STEPS_PER_EPOCH, config.VALIDATION_STEPS) == (32, 100, 5)
    config.check_model()


def test_the_small_network_is_small():
    from mrcnn.network.assemble import build_model

    config = shapes.SmallShapesConfig()
    config.check_model()
    assert config.BACKBONE is shapes.small_backbone and config.IMAGE_SHAPE.tolist() == [128, 128, 3]
    counts = {mode: build_model(mode, config).count_params() for mode in ("training", "inference")}
    assert counts["training"] == counts["inference"] <= 1.2e6


def test_the_small_backbone_has_the_strides_that_it_says():
    import keras

    image = keras.Input((128, 192, 3))
    stages = shapes.small_backbone(image)
    assert [tuple(stage.shape[1:3]) for stage in stages] == [(64, 96), (32, 48), (16, 24), (8, 12), (4, 6)]
    assert shapes.backbone_shape((128, 192, 3)).tolist() == [[32, 48], [16, 24], [8, 12], [4, 6], [2, 3]]
    assert shapes.small_backbone(image, stage5=False)[4] is None


# ---- evaluation and pictures, without a network


class Oracle:
    """In a model's place: it finds everything in the images of a data set but what is left out."""

    def __init__(self, dataset, left_out=()):
        self.config = shapes.SmallShapesConfig()
        self.dataset, self.left_out, self.seen = dataset, left_out, 0

    def detect(self, images):
        results = []
        for image in images:
            assert np.array_equal(image, self.dataset.load_image(self.seen))
            result = shapes.truth(self.dataset, self.seen)
            if self.seen in self.left_out:
                result = {key: value[..., :0] if key == "masks" else value[:0] for key, value in result.items()}
            results.append(result)
            self.seen += 1
        return results


def test_evaluation_is_the_mean_over_images():
    dataset = shapes.make_dataset(10, seed=3)
    assert shapes.evaluate(Oracle(dataset), dataset) == pytest.approx(1)
    assert shapes.evaluate(Oracle(dataset, left_out=(0, 9)), dataset) == pytest.approx(0.8)


def test_a_picture_is_drawn_of_every_panel(tmp_path):
    pictures = load_script("pictures")
    dataset = shapes.make_dataset(3, seed=4)
    panels = [(str(i), dataset.load_image(i), shapes.truth(dataset, i), True) for i in dataset.image_ids]
    path = tmp_path / "picture.png"
    path.write_bytes(b"an older one")
    pictures.save_picture(path, panels, dataset.class_names, columns=2)
    picture = skimage.io.imread(path)
    quarter = picture.shape[0] // 2, picture.shape[1] // 2
    assert min(quarter) > 250
    assert picture[: quarter[0], : quarter[1], :3].std() > 10
    assert (picture[quarter[0] :, quarter[1] :, :3] == 255).all()  # the fourth panel stays white
    assert os.listdir(tmp_path) == ["picture.png"]


# ---- command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "<command>"),
        ("trian", "trian"),
        ("train --epochs 0", "1 or more"),
        ("train --count many", "many"),
        ("train --weights missing.h5", "missing.h5: there is no such file"),
        ("train --config medium", "medium"),
        ("train --image cat.png", "--image is for detect"),
        ("train --seed -1", "between 0 and"),
        ("evaluate --weights none", "needs trained weights"),
        ("detect --image missing.png", "missing.png: there is no such file"),
        ("detect --output no/such/folder/picture.png", "there is no such folder"),
    ],
)
def test_the_command_line_refuses_what_cannot_work(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        shapes.parse_arguments(arguments.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_defaults_of_the_command_line():
    train, evaluate = (shapes.parse_arguments([command]) for command in ("train", "evaluate"))
    assert train.weights == "none" and evaluate.weights == "last"
    assert train.seed != evaluate.seed
    assert train.logs == os.path.join(shapes.ROOT_DIR, "logs") and train.config == "small"


def run_script(name, *arguments, cwd):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, FOLDER / f"{name}.py", *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip


def test_mistakes_show_before_anything_slow(tmp_path, run_python):
    result = run_script("shapes", "evaluate", "--weights", "missing.h5", cwd=tmp_path)
    assert result.returncode == 2 and "missing.h5: there is no such file" in result.stderr
    code = f"import sys; sys.path.append({str(FOLDER)!r}); import shapes; print('keras' in sys.modules)"
    assert run_python(code).strip() == "False"


@pytest.mark.slow
def test_all_commands_run_in_any_folder(tmp_path):
    logs = ("--logs", str(tmp_path / "logs"))
    missing = run_script("shapes", "evaluate", *logs, cwd=tmp_path)
    assert missing.returncode == 1 and "No checkpoint" in missing.stderr and "Traceback" not in missing.stderr
    trained = run_script("shapes", "train", "--epochs", "1", "--steps", "2", *logs, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    (checkpoint,) = tmp_path.glob("logs/shapes*/mask_rcnn_shapes_0001.h5")
    assert checkpoint.stat().st_size < 5e6
    evaluated = run_script("shapes", "evaluate", "--count", "3", *logs, cwd=tmp_path)
    assert evaluated.returncode == 0 and "mAP@50 on 3 images of seed 1000: " in evaluated.stdout
    image = tmp_path / "grey.png"
    skimage.io.imsave(image, np.full((150, 90), 99, np.uint8), check_contrast=False)
    arguments = ("detect", "--weights", str(checkpoint), "--image", "grey.png", "--output", "found.png")
    detected = run_script("shapes", *arguments, cwd=tmp_path)
    assert detected.returncode == 0, detected.stderr
    assert skimage.io.imread(tmp_path / "found.png").shape[2] in (3, 4)


@pytest.mark.slow
def test_two_steps_train_and_their_weights_detect(tmp_path):
    config = shapes.SmallShapesConfig()
    config.SEED, config.STEPS_PER_EPOCH, config.VALIDATION_STEPS = 1, 2, 1
    model = shapes.make_model("training", config, str(tmp_path))
    before = [np.array(w) for w in model.keras_model.trainable_variables]
    shapes.train(model, shapes.make_dataset(16, seed=1), shapes.make_dataset(8, seed=2), epochs=1)
    after = [np.array(w) for w in model.keras_model.trainable_variables]
    assert all(np.isfinite(w).all() for w in after)
    # the mask head has nothing to learn until a proposal lies on an object
    assert sum(not np.array_equal(a, b) for a, b in zip(before, after, strict=True)) > 0.7 * len(before)
    twin = shapes.make_model("inference", config, str(tmp_path))
    assert shapes.load_weights(twin, "last") == model.find_last()
    results = dict(shapes.detect(twin, shapes.make_dataset(3, seed=3)))
    assert list(results) == [0, 1, 2] and results[0]["masks"].shape[:2] == (128, 128)


def test_the_learning_rate_rises_and_falls():
    rate = shapes.learning_rate(0.02, steps=1000)
    values = [float(rate(step)) for step in (0, 50, 100, 550, 1000)]
    assert values == pytest.approx([0, 0.01, 0.02, 0.01, 0], abs=1e-6)
    assert float(shapes.learning_rate(0.02, steps=2)(1)) == pytest.approx(0.02)


@pytest.mark.slow
def test_the_demo_leaves_what_it_says(tmp_path):
    for _ in range(2):  # the second run replaces the files of the first
        result = run_script("demo", "--steps", "3", "--seed", "5", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        files = sorted(os.listdir(tmp_path / "demo"))
        assert files == ["detections.png", "log.csv", "loss_curve.png", "mask_rcnn_shapes.h5", "results.json"]
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert results["images"] == 50 and results["seed"] == 5 and 0 <= results["map50"] <= 1
    assert results["training_seconds"] > 0 and 100 < results["peak_rss_mb"] < 4096
    assert (tmp_path / "demo" / "mask_rcnn_shapes.h5").stat().st_size < 5e6


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1])
def test_the_demo_learns_the_shapes(tmp_path, seed):
    """What `make demo` does, and then other images than those it scores."""
    result = run_script("demo", "--seed", str(seed), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert results["map50"] >= 0.95 and results["peak_rss_mb"] < 4096 and results["parameters"] <= 1_200_000
    model = shapes.make_model("inference", shapes.SmallShapesConfig(), str(tmp_path))
    model.load_weights(str(tmp_path / "demo" / "mask_rcnn_shapes.h5"), by_name=True)
    assert shapes.evaluate(model, shapes.make_dataset(200, seed=31415)) >= 0.95
