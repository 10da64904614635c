"""Small networks on balloons and nuclei: data in memory, the augmentation, and the trainings themselves."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "samples" / folder) for folder in (".", "shapes", "balloon", "nucleus")]

import from_nothing  # noqa: E402

from mrcnn import utils  # noqa: E402


class Blocks(tiny.Squares):
    """One class; squares of a row beside each other, so that none hides another."""

    def __init__(self, count, size=96):
        utils.Dataset.__init__(self)
        self.add_class("blocks", 1, "block")
        for number in range(count):
            self.add_image("blocks", number, path=None, size=size)
        self.prepare()

    def boxes(self, image_id):
        size = self.image_info[image_id]["size"]
        half = size // 2
        return np.ones(2, np.int32), np.array([[8, 8, half, size // 3], [half, half, size - 8, size - 4]])


def test_images_are_kept_as_they_are():
    source = Blocks(3)
    kept = from_nothing.InMemory(source, lambda height, width: 1)
    assert kept.num_images == 3 and kept.class_names == ["BG", "block"]
    for image_id in kept.image_ids:
        assert np.array_equal(kept.load_image(image_id), source.load_image(image_id))
        masks, class_ids = kept.load_mask(image_id)
        assert np.array_equal(masks, source.load_mask(image_id)[0]) and class_ids.tolist() == [1, 1]


def test_images_are_scaled_with_their_masks():
    kept = from_nothing.InMemory(Blocks(1), lambda height, width: 48 / max(height, width))
    assert kept.load_image(0).shape == (48, 48, 3)
    boxes = utils.extract_bboxes(kept.load_mask(0)[0])
    np.testing.assert_allclose(boxes, Blocks(1).boxes(0)[1] / 2, atol=1)


def test_tiles_cover_the_image_and_show_what_lies_in_them():
    source = Blocks(1)
    kept = from_nothing.InMemory(source, lambda height, width: 1, tile=64)
    assert kept.num_images == 4
    corners = [tuple(map(int, info["id"].split("+")[1:])) for info in kept.image_info]
    assert corners == [(0, 0), (0, 32), (32, 0), (32, 32)]
    image = np.zeros((96, 96, 3), np.uint8)
    for image_id, (y, x) in enumerate(corners):
        image[y : y + 64, x : x + 64] = kept.load_image(image_id)
        whole = source.load_mask(0)[0][y : y + 64, x : x + 64]
        assert np.array_equal(kept.load_mask(image_id)[0], whole[..., whole.any(axis=(0, 1))])
    assert np.array_equal(image, source.load_image(0))


@given(length=st.integers(1, 2000), side=st.integers(32, 400))
@settings(max_examples=100, deadline=None)
def test_tiles_leave_no_gap(length, side):
    starts = [y for y, _ in from_nothing.tiles(length, 1, side)]
    assert starts[0] == 0 and starts[-1] == max(0, length - side)
    assert all(0 < b - a <= side * 2 / 3 + 1 for a, b in itertools.pairwise(starts))


AUGMENTATIONS = [augmentation for task in from_nothing.TASKS.values() for _, augmentation in task["phases"]]


@given(seed=st.integers(0, 2**32 - 1), vary=st.sampled_from(AUGMENTATIONS))
@settings(max_examples=40, deadline=None)
def test_image_and_masks_move_together(seed, vary):
    masks = Blocks(1).load_mask(0)[0].astype(np.uint8)
    image = np.repeat(masks.max(axis=2, keepdims=True) * 200, 3, axis=2)
    new_image, new_masks = vary(image, masks, np.random.default_rng(seed))
    assert new_image.shape == image.shape and new_image.dtype == np.uint8 and new_masks.shape == masks.shape
    # Bright is where a mask is, but for the rims, where the image is interpolated.
    assert ((new_image.max(axis=2) > 80) == new_masks.any(axis=2)).mean() > 0.96


def test_hues_go_round_the_circle():
    red, grey = np.full((2, 3, 3), (200, 0, 0), np.uint8), np.full((2, 3, 3), 90, np.uint8)
    assert np.array_equal(from_nothing.shift_hue(red, 0), red)
    third = from_nothing.shift_hue(red, 85)[0, 0].astype(int)
    assert third.argmax() == 1 and third[1] == 200 and third[[0, 2]].max() < 10, "green"
    assert np.array_equal(from_nothing.shift_hue(grey, 100), grey)
    assert np.abs(from_nothing.shift_hue(from_nothing.shift_hue(red, 200), 56).astype(int) - red).max() < 10


def test_sizes_and_hues_as_asked():
    image, masks = Blocks(1).load_image(0), Blocks(1).load_mask(0)[0]
    areas = [
        from_nothing.vary(image, masks, np.random.default_rng(seed), sizes=(0.5, 0.5))[1].sum() / masks.sum()
        for seed in range(5)
    ]
    assert np.allclose(areas, 0.25, atol=0.05)
    grey, light = np.full_like(image, 90), []
    for hues in (0.0, 1.0):
        light.append(from_nothing.vary(grey, masks, np.random.default_rng(3), sizes=(1, 1), hues=hues)[0])
    assert all(np.ptp(one.reshape(-1, 3), axis=0).max() == 0 for one in light)


def test_one_seed_varies_alike():
    image, masks = Blocks(1).load_image(0), Blocks(1).load_mask(0)[0]
    first, again, other = (from_nothing.vary(image, masks, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("task", from_nothing.TASKS)
def test_configs_can_be_built(task):
    assert sum(share for share, _ in from_nothing.TASKS[task]["phases"]) == 1
    for config_class in from_nothing.TASKS[task]["configs"]:
        config = config_class()
        config.check_model()
        assert task == config.NAME and config.DETECTION_MIN_CONFIDENCE == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ballon", "--dataset", "."], "Did you mean 'balloon'"),
        (["balloon"], "--dataset"),
        (["balloon", "--dataset", "nowhere"], "there is no such folder"),
        (["nucleus", "--dataset", ".", "--weights", "none.h5"], "there is no such file"),
        (["nucleus", "--dataset", ".", "--steps", "0"], "1 or more"),
    ],
)
def test_what_is_refused(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        from_nothing.main(arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def drawn_balloons(folder):
    """A data set in VIA's format whose balloons are red discs."""
    for part, count in (("train", 4), ("val", 2)):
        (folder / part).mkdir(parents=True)
        entries = {}
        for number in range(count):
            image = np.full((120, 160, 3), 60, np.uint8)
            y, x = np.mgrid[:120, :160]
            image[(y - 60) ** 2 + (x - 50 - 20 * number) ** 2 < 900] = (230, 30, 30)
            name = f"{number}.png"
            PIL.Image.fromarray(image).save(folder / part / name)
            shape = {"name": "circle", "cx": 50 + 20 * number, "cy": 60, "r": 30}
            entries[name] = {"filename": name, "size": -1, "regions": {"0": {"shape_attributes": shape,
                                                                             "region_attributes": {}}}}  # fmt: skip
        (folder / part / "via_region_data.json").write_text(json.dumps(entries))
    return folder


@pytest.mark.slow
def test_a_short_training_leaves_weights_results_and_a_picture(tmp_path, capsys):
    data, output = drawn_balloons(tmp_path / "data"), tmp_path / "results"
    from_nothing.main(["balloon", "--dataset", str(data), "--output", str(output), "--steps", "2"])
    results = json.loads((output / "results.json").read_text())
    assert results["steps"] == 2 and 0 <= results["scores"]["val"]["segm"]["AP50"] <= 1
    assert 0 <= results["scores"]["train"]["mean_AP50"] <= 1
    assert (output / "weights.h5").stat().st_size > 5e6
    with PIL.Image.open(output / "detections.png") as picture:
        assert picture.size == (2 * 480, 480)
    assert "AP50 of masks" in capsys.readouterr().out
    before = results["scores"]
    from_nothing.main(["balloon", "--dataset", str(data), "--output", str(output), "--weights",
                       str(output / "weights.h5")])  # fmt: skip
    assert json.loads((output / "results.json").read_text())["scores"] == before


def learn(task, data_dir, output):
    """The results of the whole training of a task."""
    from_nothing.main([task, "--dataset", str(data_dir / task), "--output", str(output)])
    results = json.loads((output / "results.json").read_text())
    print(json.dumps(results))
    return results


@pytest.mark.long
def test_balloons_are_learned(data_dir, tmp_path):
    results = learn("balloon", data_dir, tmp_path)
    train, val = results["scores"]["train"], results["scores"]["val"]
    assert results["training_seconds"] < 1800
    # As the original's notebooks measure, the mean over images; and as COCO does, over all detections at once.
    assert train["mean_AP50"] >= 0.85 and val["mean_AP50"] >= 0.40
    assert train["segm"]["AP50"] >= 0.70 and val["segm"]["AP50"] >= 0.33


@pytest.mark.long
def test_nuclei_are_learned(data_dir, tmp_path):
    results = learn("nucleus", data_dir, tmp_path)
    assert results["training_seconds"] < 3600
    assert results["scores"]["val"]["mean_AP50"] >= 0.50 and results["scores"]["val"]["segm"]["AP50"] >= 0.50
