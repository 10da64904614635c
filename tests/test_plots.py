"""Curves, grids and tables."""

import csv
import sys

import keras
import matplotlib
import numpy as np
import pytest

from mrcnn import utils, visualize

NAMES = ["BG", "cat", "dog"]


@pytest.fixture(autouse=True)
def figures():
    import matplotlib.pyplot as plt

    with matplotlib.rc_context({"backend": "agg"}):
        plt.switch_backend("agg")
        yield plt
        plt.close("all")


def test_precision_over_recall():
    ax = visualize.plot_precision_recall(0.5, [1, 0.5, 0], [0, 0.5, 1])
    assert np.array_equal(ax.lines[0].get_xydata(), [(0, 1), (0.5, 0.5), (1, 0)])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("recall", "precision")
    assert ax.get_legend().get_texts()[0].get_text() == "AP@50 = 0.500"
    curves = {name: ([1, 0], [0, 1]) for name in NAMES}
    assert len({line.get_color() for line in visualize.plot_precision_recall_curves(curves).lines}) == 3
    with pytest.raises(ValueError, match="wrong: \\['a'\\]"):
        visualize.plot_precision_recall_curves({"a": ([1], [0, 1])})


def test_overlaps_say_match_or_wrong():
    overlaps = np.array([[0.9, 0.1], [0.0, 0.7]])
    ax = visualize.plot_overlaps([1, 2], [1, 1], [0.99, 0.8], overlaps, NAMES)
    assert [t.get_text() for t in ax.texts] == ["0.90\nmatch", "0.10", "0.00", "0.70\nwrong"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["cat (0.99)", "cat (0.80)"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["cat", "dog"]
    with pytest.raises(ValueError, match="\\[2 predictions, 1 objects\\]"):
        visualize.plot_overlaps([1], [1, 1], [0.9, 0.8], overlaps, NAMES)
    empty = visualize.plot_overlaps([], [], [], np.zeros((0, 0)), NAMES)
    assert empty.texts[0].get_text() == "nothing to compare"


def test_confusion_matrix_shows_counts():
    matrix = utils.confusion_matrix([1, 2, 2], [1, 1, 2], [0.9, 0.8, 0.7], np.diag([0.9, 0.8, 0.1]), 3)
    assert matrix.tolist() == [[0, 0, 1], [0, 1, 0], [1, 1, 0]]
    ax = visualize.plot_confusion_matrix(matrix, NAMES)
    shown = {tuple(map(int, t.get_position())): t.get_text() for t in ax.texts}
    assert shown == {(2, 0): "1", (1, 1): "1", (0, 2): "1", (1, 2): "1"}
    with pytest.raises(ValueError, match="\\[2, 2\\] for 2 class names"):
        visualize.plot_confusion_matrix(matrix, NAMES[:2])


def write_log(path, rows):
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[-1]))
        table.writeheader()
        table.writerows(rows)


def test_losses_over_epochs(tmp_path):
    write_log(tmp_path / "log.csv", [
        {"epoch": 0, "loss": 3, "mrcnn_mask_loss": 0.7, "val_loss": ""},
        {"epoch": 1, "loss": 2, "mrcnn_mask_loss": 0.5, "val_loss": 2.5},
    ])  # fmt: skip
    for path in (tmp_path, tmp_path / "log.csv"):
        figure = visualize.plot_losses(path)
        total = figure.axes[0]
        assert total.lines[0].get_xydata().tolist() == [[1, 3], [2, 2]]
        assert np.nan_to_num(total.lines[1].get_ydata(), nan=-1).tolist() == [-1, 2.5]
        assert [len(ax.lines) for ax in figure.axes] == [2, 0, 0, 0, 0, 1]
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="found \\['a', 'b'\\]"):
        visualize.plot_losses(tmp_path / "other.csv")
    with pytest.raises(FileNotFoundError):
        visualize.plot_losses(tmp_path / "none.csv")


def test_tables_are_text_outside_notebooks(capsys):
    visualize.display_table([["name", "value"], ["a longer one", 1], ["x"]])
    assert capsys.readouterr().out == "name          value\na longer one  1\nx\n"
    visualize.display_table([])
    assert capsys.readouterr().out == ""


def test_tables_are_html_in_notebooks(monkeypatch):
    from types import ModuleType, SimpleNamespace

    seen = []
    shell, display = ModuleType("IPython"), ModuleType("IPython.display")
    shell.get_ipython = lambda: SimpleNamespace(kernel=1)
    display.HTML, display.display = str, seen.append
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    visualize.display_table([["a<b", 1]])
    assert seen == ["<table><tr><td>a&lt;b</td><td>1</td></tr></table>"]


def test_weights_that_look_wrong_are_flagged(capsys):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="fine"),
                              keras.layers.Dense(3, name="dead", kernel_initializer="ones"),
                              keras.layers.Dense(3, name="high")])  # fmt: skip
    kernel, bias = model.get_layer("high").get_weights()
    model.get_layer("high").set_weights([kernel, bias + 2000])
    visualize.display_weight_stats(model)
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "dead?" in lines["dead/kernel"] and "Overflow?" in lines["high/bias"]
    assert not any("***" in lines[name] for name in ("fine/kernel", "fine/bias", "dead/bias", "high/kernel"))
    assert "(4, 3)" in lines["fine/kernel"]
