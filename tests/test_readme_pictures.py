"""The pictures of the README: small, all shown, and made by the script that says so."""

import csv
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import scripts

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "figures"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PICTURES = sorted(path.name for path in FOLDER.glob("*.png"))


def pixels(path):
    with PIL.Image.open(path) as image:
        return np.asarray(image.convert("RGB"), int)


def test_they_are_small():
    sizes = {name: (FOLDER / name).stat().st_size for name in PICTURES}
    assert max(sizes.values()) < 150_000 and sum(sizes.values()) < 900_000


def test_the_readme_shows_each_of_them_and_says_what_it_is():
    shown = dict(re.findall(r"!\[([^]]*)\]\(docs/figures/([\w.]+)\)", README))
    assert sorted(shown.values()) == PICTURES and all(shown)


def test_the_losses_are_those_of_the_weights_that_ship():
    """By what else is known of that training: 30 epochs of 100 steps (samples/shapes/README.md)."""
    with open(ROOT / "samples" / "shapes" / "mask_rcnn_shapes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(30))
    losses = np.array([float(row["loss"]) for row in rows])
    assert losses[0] > 3 and losses[-1] < 0.4 and {"val_loss", "mrcnn_mask_loss"} <= set(rows[0])


@pytest.fixture
def pictures(monkeypatch):
    """docs/pictures.py as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "notebooks"))
    return scripts.load_script(ROOT / "docs", "pictures")


@pytest.mark.slow
def test_they_can_be_made_again(pictures, tmp_path, figures, capsys):
    pictures.main(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == PICTURES
    for name in PICTURES:
        made, kept = pixels(tmp_path / name), pixels(FOLDER / name)
        assert made.shape == kept.shape and np.abs(made - kept).mean() < 3, name
    assert "overview.png: " in capsys.readouterr().out
    assert figures.get_fignums() == []


@pytest.mark.slow
def test_a_picture_is_there_whole_or_not_at_all(pictures, tmp_path, figures, monkeypatch):
    figure = figures.figure()

    def fail(path, **options):
        Path(path).write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="disk is full"):
        pictures.save(figure, tmp_path / "a.png", 50)
    assert list(tmp_path.iterdir()) == [] and figures.get_fignums() == []
