"""The trained weights that come with the Shapes sample."""

import functools
import subprocess
from pathlib import Path

import numpy as np
import pytest
import scripts

from mrcnn import model as modellib
from mrcnn import utils

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "samples" / "shapes"
WEIGHTS = FOLDER / "mask_rcnn_shapes.h5"

shapes = scripts.load_script(FOLDER, "shapes")


@functools.cache
def trained():
    model = modellib.MaskRCNN("inference", shapes.SmallShapesConfig(), "logs")
    model.load_weights(WEIGHTS, by_name=True)
    return model


def test_the_file_is_small_and_part_of_the_repository():
    assert WEIGHTS.stat().st_size < 5e6
    if (ROOT / ".git").exists():
        ignored = subprocess.run(["git", "check-ignore", "--no-index", "-q", str(WEIGHTS)], cwd=ROOT, check=False)
        assert ignored.returncode == 1, ".gitignore hides it"
    readme = (FOLDER / "README.md").read_text()
    assert all(text in readme for text in (WEIGHTS.name, "demo.py --steps 3000 --seed 0", "0.9592"))


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_they_load_whole(mode, capsys):
    modellib.MaskRCNN(mode, shapes.SmallShapesConfig(), "logs").load_weights(WEIGHTS, by_name=True)
    assert "loaded 161 of 161 arrays" in capsys.readouterr().out


def test_they_find_what_is_drawn():
    """On the 50 images of the README, so that its figure stays true (0.9592, but for how machines round)."""
    assert shapes.evaluate(trained(), shapes.make_dataset(50, 2)) == pytest.approx(0.9592, abs=0.02)


def test_they_find_shapes_of_any_seed():
    dataset = shapes.make_dataset(20, 77)
    assert shapes.evaluate(trained(), dataset) > 0.9
    result = trained().evaluate(dataset, verbose=0)
    assert result["segm"]["AP50"] > 0.9 and result["bbox"]["AP50"] > 0.9


def test_a_plain_picture_is_understood():
    """A square, a circle and a triangle apart from one another: no more, no less."""
    dataset = shapes.make_dataset(1, 0)
    recipe = [("square", (250, 60, 50), (30, 34, 22)), ("circle", (240, 240, 80), (96, 34, 22)),
              ("triangle", (40, 60, 240), (64, 96, 24))]  # fmt: skip
    dataset.image_info[0].update(bg_color=np.array([40, 160, 90]), shapes=recipe)
    masks, class_ids = dataset.load_mask(0)
    found = trained().detect([dataset.load_image(0)])[0]
    assert sorted(found["class_ids"]) == sorted(class_ids) == [1, 2, 3]
    order = np.argsort(found["class_ids"])
    overlaps = utils.compute_overlaps_masks(masks, found["masks"][..., order])
    assert (np.diag(overlaps) > 0.75).all() and (found["scores"] > 0.8).all()
