"""The benchmark of drawing: what it prints and writes, on a small photo."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scripts

drawing = scripts.load_benchmark("drawing")
pytestmark = pytest.mark.usefixtures("figures")


def test_figures_are_printed_and_written(tmp_path, capsys):
    path = tmp_path / "drawing.json"
    drawing.main(["--instances", "3", "--width", "90", "--runs", "2", "--json", str(path)])
    printed, figures = capsys.readouterr().out, json.loads(path.read_text())
    assert printed.startswith("3 instances on a photo of 90 x 60 pixels; 2 runs\n")
    assert set(figures["versions"]) > {"mrcnn", "Python", "numpy", "matplotlib"} and figures["machine"]["cores"] >= 1
    assert list(figures["seconds"]) == ["draw_instances", "display_instances", "display_instances, saved"]
    for name, row in figures["seconds"].items():
        assert 0 < row["least"] <= row["median"] <= row["most"]
        assert f"{name:26}" in printed and f"{row['median']:.3f} s" in printed
        assert len(row["all"]) == 2
    assert "wanted" in printed and "< 0.5 s" not in printed, "the limit is for a large photo"
    assert not plt.get_fignums(), "closed, so that they take no memory"


def test_all_instances_can_be_seen():
    """Ellipses of many sizes with an area each, so that none is passed over."""
    photo = drawing.make_photo(300)
    result = drawing.make_result(photo.shape[:2], 100)
    boxes = result["rois"]
    assert photo.shape == (200, 300, 3) and photo.dtype == np.uint8 and photo.std() > 20
    assert result["masks"].shape == (200, 300, 100) and result["masks"].any(axis=(0, 1)).all()
    assert ((boxes[:, 2:] - boxes[:, :2]) > 0).all() and np.ptp(boxes[:, 3] - boxes[:, 1]) > 20


@pytest.mark.parametrize("width, height", [(1, 1), (2, 1), (3, 2)])
def test_the_smallest_photos(width, height):
    assert drawing.make_photo(width).shape == (height, width, 3)
    figures = drawing.run(instances=2, width=width, runs=1)
    assert figures["input"] == {"width": width, "height": height, "instances": 2, "runs": 1}


@pytest.mark.parametrize("arguments, message", [
    (["--runs", "0"], "must be a whole number of 1 or more; received '0'"),
    (["--width", "0"], "must be a whole number of 1 or more; received '0'"),
    (["--json", "none/x.json"], "there is no such folder"),
    (["--json", "."], "--json .: is a folder, not a file"),
])  # fmt: skip
def test_wrong_arguments(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        drawing.main(arguments)
    assert message in capsys.readouterr().err
