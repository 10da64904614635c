"""Curves, grids and tables."""

import csv
import itertools
import sys

import golden_pictures
import keras
import numpy as np
import pytest
from PIL import Image

from mrcnn import visualize

NAMES = ["BG", "cat", "dog"]


pytestmark = pytest.mark.usefixtures("figures")


def test_precision_over_recall():
    ax = visualize.plot_precision_recall(0.5, [1, 0.5, 0], [0, 0.5, 1])
    assert np.array_equal(ax.lines[0].get_xydata(), [(0, 1), (0.5, 0.5), (1, 0)])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("recall", "precision") and "0.500" in ax.get_title()
    with pytest.raises(ValueError, match="equally many; received 1, 2"):
        visualize.plot_precision_recall(0.5, [1], [0, 1])


def test_curves_of_a_data_set():
    result = golden_pictures.evaluated()
    mean = visualize.plot_dataset_precision_recall(result)
    assert len(mean.lines) == 10 and mean.get_legend().get_texts()[0].get_text().startswith("0.50: ")
    classes = visualize.plot_dataset_precision_recall(result, classes="all")
    assert [text.get_text().split(":")[0] for text in classes.get_legend().get_texts()] == ["square", "circle"]
    with pytest.raises(ValueError, match="no objects of \\['cat'\\]"):
        visualize.plot_dataset_precision_recall(result, classes=["cat"])
    with pytest.raises(ValueError, match="no curves of 'bbox'"):
        visualize.plot_dataset_precision_recall(result, "bbox")


def test_overlaps_say_match_or_wrong():
    overlaps = np.array([[0.9, 0.1], [0.0, 0.7]])
    ax = visualize.plot_overlaps([1, 2], [1, 1], [0.99, 0.8], overlaps, NAMES)
    assert [t.get_text() for t in ax.texts] == ["0.90\nmatch", "0.10", "", "0.70\nwrong"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["cat 0.99", "cat 0.80"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["cat", "dog"]
    with pytest.raises(ValueError, match="\\[2, 1\\], with as many scores"):
        visualize.plot_overlaps([1], [1, 1], [0.9, 0.8], overlaps, NAMES)
    with pytest.raises(ValueError, match="class id 7 has no name"):
        visualize.plot_overlaps([1, 7], [1, 1], [0.9, 0.8], overlaps, NAMES)
    empty = visualize.plot_overlaps([], [], [], np.zeros((0, 0)), NAMES)
    assert empty.texts[0].get_text() == "no predictions"


def test_confusion_matrix_shows_counts():
    ax = visualize.plot_confusion_matrix([[0, 0, 1], [0, 4, 0], [2, 1, 0]], NAMES)
    shown = {tuple(map(int, t.get_position())): t.get_text() for t in ax.texts if t.get_text()}
    assert [t.get_text() for t in ax.get_xticklabels()] == ["cat", "dog", "background"]
    assert shown == {(1, 2): "1", (0, 0): "4", (2, 1): "2", (0, 1): "1"}
    with pytest.raises(ValueError, match="2 names for a matrix of 3"):
        visualize.plot_confusion_matrix(np.eye(3), NAMES[:2])
    for wrong in (np.ones((2, 3)), np.ones((0, 0)), [[-1]], [[np.nan]]):
        with pytest.raises(ValueError, match="must be square and hold counts"):
            visualize.plot_confusion_matrix(wrong)
    for nothing in ([[0]], np.zeros((3, 3))):
        assert not any(text.get_text() for text in visualize.plot_confusion_matrix(nothing).texts)


@pytest.mark.parametrize("count", [3, 20, 81, 300])
def test_matrices_of_any_size_fit_a_page(count):
    """No longer side than 12 inches; names do not touch, and numbers stay in their cells or are left out."""
    names = ["BG", *(f"class {number}" for number in range(1, count))]
    ids, overlaps = np.arange(1, count), np.diag(np.linspace(0.4, 1, count - 1))
    for ax in (visualize.plot_confusion_matrix(np.eye(count, dtype=int) * 100, names),
               visualize.plot_overlaps(ids, ids[::-1], np.ones(count), overlaps, names)):  # fmt: skip
        assert max(ax.figure.get_size_inches()) <= 12
        ax.figure.canvas.draw()
        for axis, side in ((ax.xaxis, "x"), (ax.yaxis, "y")):
            boxes = sorted(getattr(label.get_window_extent(), f"interval{side}").tolist()
                           for label in axis.get_ticklabels())  # fmt: skip
            assert all(before[1] <= after[0] + 1 for before, after in itertools.pairwise(boxes))
        cell = ax.get_window_extent().width / len(ax.images[0].get_array())
        written = [text for text in ax.texts if text.get_text()]
        assert all(text.get_window_extent().width <= cell and text.get_fontsize() >= 5.5 for text in written)
        assert bool(written) == (count <= 20)


def test_overlaps_of_many_are_marked():
    """Where no number fits, a dot says match and a cross wrong, beside a bar of the shades."""
    ids, count = np.ones(60, int), 60
    predicted = np.where(np.arange(count) < 10, 2, 1)
    overlaps = np.diag(np.where(np.arange(count) < 20, 0.8, 0.3))
    ax = visualize.plot_overlaps(ids, predicted, np.ones(count), overlaps, NAMES)
    dots, crosses = ax.lines
    assert (dots.get_marker(), crosses.get_marker()) == ("o", "x")
    assert np.array_equal(dots.get_xdata(), range(10, 20)) and np.array_equal(crosses.get_ydata(), range(10))
    assert not ax.texts and "a dot marks a match" in ax.get_title() and len(ax.figure.axes) == 2


def write_log(path, rows):
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[-1]))
        table.writeheader()
        table.writerows(rows)


def test_losses_over_epochs(tmp_path):
    write_log(tmp_path / "log.csv", [
        {"epoch": 0, "loss": 3, "mrcnn_mask_loss": 0.7, "val_loss": "NA"},
        {"epoch": 1, "loss": 9, "mrcnn_mask_loss": 0.5, "val_loss": 9},
        {"epoch": 1, "loss": 2, "mrcnn_mask_loss": 0.5, "val_loss": 2.5},
    ])  # fmt: skip
    for path in (tmp_path, tmp_path / "log.csv"):
        figure = visualize.plot_losses(path)
        total = figure.axes[0]
        assert total.lines[0].get_xydata().tolist() == [[1, 3], [2, 2]]
        assert total.lines[1].get_xydata().tolist() == [[2, 2.5]], "the last values of an epoch that was run again"
        assert [len(ax.lines) for ax in figure.axes] == [2, 1]
        assert {(ax.get_xlabel(), ax.get_ylabel()) for ax in figure.axes} == {("epoch", "loss")}
    (tmp_path / "utf16.csv").write_text("epoch,loss\n0,1\n", encoding="utf-16")
    with pytest.raises(ValueError, match="utf16.csv is no table of comma-separated values"):
        visualize.plot_losses(tmp_path / "utf16.csv")
    (tmp_path / "commas.csv").write_text("epoch,loss\n0,1,5\n")
    with pytest.raises(ValueError, match="commas.csv: line 2 has more cells than the 2 columns"):
        visualize.plot_losses(tmp_path / "commas.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no log of a training"):
        visualize.plot_losses(tmp_path / "other.csv")
    with pytest.raises(FileNotFoundError):
        visualize.plot_losses(tmp_path / "none.csv")


def test_tables_are_text_outside_notebooks(capsys):
    visualize.display_table([["name", "value"], ["a longer one", 1], ["x"]])
    assert capsys.readouterr().out == "name          value\na longer one  1\nx\n"
    visualize.display_table([["a", "b"], [1, 2]], header=True)
    assert capsys.readouterr().out == "a  b\n-  -\n1  2\n"


def test_tables_are_html_in_notebooks(monkeypatch):
    from types import ModuleType, SimpleNamespace

    seen = []
    shell, display = ModuleType("IPython"), ModuleType("IPython.display")
    shell.get_ipython = lambda: SimpleNamespace(kernel=1)
    display.HTML, display.display = str, seen.append
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    visualize.display_table([["a<b", 1]])
    assert seen[0].startswith("<table><tr><td") and "a&lt;b</td>" in seen[0] and seen[0].endswith("1</td></tr></table>")


def test_weights_that_look_wrong_are_flagged(capsys):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="fine"),
                              keras.layers.Dense(3, name="dead", kernel_initializer="ones"),
                              keras.layers.Dense(3, name="high")])  # fmt: skip
    kernel, bias = model.get_layer("high").get_weights()
    model.get_layer("high").set_weights([kernel, bias + 2000])
    visualize.display_weight_stats(model)
    lines = {"/".join(line.split()[0].split("/")[-2:]): line for line in capsys.readouterr().out.splitlines()}
    assert lines["dead/kernel"].endswith("dead?") and lines["high/bias"].endswith("Overflow?")
    assert not any("?" in lines[name] for name in ("fine/kernel", "fine/bias", "dead/bias", "high/kernel"))
    assert "(4, 3)" in lines["fine/kernel"]


def test_a_variance_overflows_by_its_root(capsys):
    """Pixels of 0 to 255 in front of a batch normalisation are no overflow; what is as large as 1000 is."""
    model = keras.Sequential([keras.Input((3,)), *(keras.layers.BatchNormalization(name=name) for name in "abc")])
    for name, mean, variance in (("a", 300, 1.7e4), ("b", 300, 1.1e6), ("c", 1100, 1.7e4)):
        gamma, beta, *_ = model.get_layer(name).get_weights()
        steps = np.arange(3)  # not all the same
        model.get_layer(name).set_weights([gamma, beta, mean + steps, variance + steps])
    visualize.display_weight_stats(model)
    marked = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.endswith("Overflow?")]
    assert [name.split("/")[-2:] for name in marked] == [["b", "moving_variance"], ["c", "moving_mean"]]


# ------------------------------------------------------------------ how they all look
@pytest.mark.parametrize("picture", golden_pictures.PICTURES, ids=lambda picture: picture.__name__)
def test_figures_look_as_before(picture, tmp_path):
    """Small differences of fonts pass; another layout, colour or missing part does not."""
    with Image.open(golden_pictures.FOLDER / f"{picture.__name__}.png") as image:
        known = image.convert("RGB")
    made = Image.fromarray(golden_pictures.make(picture, tmp_path))
    assert np.allclose(made.size, known.size, rtol=0.03, atol=3)
    small = tuple(max(1, side // 4) for side in known.size)
    ours, theirs = (np.asarray(one.resize(small, Image.Resampling.BOX), float) for one in (made, known))
    assert np.abs(ours - theirs).mean() < 3 and (np.abs(ours - theirs).max(axis=2) > 60).mean() < 0.02
