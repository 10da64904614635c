"""Curves, grids and tables: precision and recall, overlaps, losses, weights."""

import csv
import os

import numpy as np

from mrcnn.drawing.axes import finish, new_axes, new_grid
from mrcnn.drawing.colors import numbered_color

LOSSES = ("loss", "rpn_class_loss", "rpn_bbox_loss", "mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss")
TRAINED, VALIDATED = (0.0, 0.45, 0.7), (0.84, 0.37, 0.0)  # told apart by the colour-blind, too


def plot_precision_recall(AP, precisions, recalls, ax=None, save=None):
    """Plots precision over recall.

    Args:
        AP: float, the area below the curve, for the title.
        precisions, recalls: [N] float, 0..1, as `utils.compute_ap` returns them.
        ax: axes to draw on; None makes a figure, and shows it.
        save: path of a file to write instead of showing the figure, or None.

    Returns:
        matplotlib Axes.
    """
    return plot_precision_recall_curves({f"AP@50 = {AP:.3f}": (precisions, recalls)}, ax=ax, save=save)


def plot_precision_recall_curves(curves, title="Precision-recall curve", ax=None, save=None):
    """Plots a precision-recall curve for each of several classes or models.

    Args:
        curves: dict from a name to (precisions [N], recalls [N]), float, 0..1.
        title: str.
        ax, save: as in `plot_precision_recall`.

    Returns:
        matplotlib Axes.

    Raises:
        ValueError: no curves; precisions and recalls differ in number.
    """
    wrong = [name for name, (precisions, recalls) in curves.items() if len(precisions) != len(recalls)]
    if not curves or wrong:
        raise ValueError(
            f"each curve needs as many precisions as recalls; received {len(curves)} curves; wrong: {wrong}"
        )
    ax, own = new_axes(ax, (6, 5))
    for number, (name, (precisions, recalls)) in enumerate(curves.items()):
        ax.plot(recalls, precisions, label=name, color=TRAINED if len(curves) == 1 else numbered_color(number))
    ax.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.05), title=title)
    ax.grid(alpha=0.3)
    ax.legend(loc="lower left", ncol=1 + len(curves) // 12, fontsize="small")
    finish(ax.figure, save, own)
    return ax


def plot_overlaps(gt_class_ids, pred_class_ids, pred_scores, overlaps, class_names, threshold=0.5, ax=None, save=None):
    """Shows which prediction overlaps which object: IoU, and whether it counts.

    Args:
        gt_class_ids: [N] int.
        pred_class_ids: [M] int.
        pred_scores: [M] float.
        overlaps: [M, N] float, intersection over union, 0..1.
        class_names: list of str by class id.
        threshold: float, overlaps above it are called "match", or "wrong" where the classes differ.
        ax, save: as in `plot_precision_recall`.

    Returns:
        matplotlib Axes; predictions in rows, objects in columns.

    Raises:
        ValueError: `overlaps` has another shape.
    """
    gt_class_ids, pred_class_ids = np.asarray(gt_class_ids), np.asarray(pred_class_ids)
    gt_class_ids = gt_class_ids[gt_class_ids != 0]
    pred_class_ids = pred_class_ids[pred_class_ids != 0]
    rows, cols = len(pred_class_ids), len(gt_class_ids)
    overlaps = np.asarray(overlaps, float)
    if overlaps.shape != (rows, cols):
        raise ValueError(f"overlaps must be [{rows} predictions, {cols} objects]; received shape {overlaps.shape}")
    ax, own = new_axes(ax, (2.5 + 0.75 * cols, 1.5 + 0.5 * rows))
    ax.imshow(overlaps.reshape(rows, cols) if overlaps.size else np.zeros((1, 1)), cmap="Blues", vmin=0, vmax=1,
              aspect="auto")  # fmt: skip
    for row, col in np.ndindex(rows, cols):
        verdict = ""
        if overlaps[row, col] > threshold:
            verdict = "\nmatch" if gt_class_ids[col] == pred_class_ids[row] else "\nwrong"
        ax.text(col, row, f"{overlaps[row, col]:.2f}{verdict}", ha="center", va="center", size=8,
                color="white" if overlaps[row, col] > 0.5 else "black")  # fmt: skip
    ax.set_xticks(range(cols), [class_names[i] for i in gt_class_ids], rotation=90)
    ax.set_yticks(range(rows), [f"{class_names[i]} ({s:.2f})" for i, s in zip(pred_class_ids, pred_scores)])
    ax.set(xlabel="ground truth", ylabel="predictions")
    if not overlaps.size:
        ax.text(0, 0, "nothing to compare", ha="center", va="center")
    finish(ax.figure, save, own)
    return ax


def plot_confusion_matrix(matrix, class_names, ax=None, save=None):
    """Shows how often objects of each class were taken for each class.

    Args:
        matrix: [classes, classes] int, `utils.confusion_matrix` summed over images: truth in rows, predictions in
            columns; the row of the background holds false detections, its column the objects that were missed.
        class_names: list of str, the background first.
        ax, save: as in `plot_precision_recall`.

    Returns:
        matplotlib Axes; colours show the share of the row.

    Raises:
        ValueError: the matrix has not a row and a column per class.
    """
    matrix, count = np.asarray(matrix), len(class_names)
    if matrix.shape != (count, count):
        raise ValueError(f"matrix must be [{count}, {count}] for {count} class names; received shape {matrix.shape}")
    names = ["(none)", *class_names[1:]]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    ax, own = new_axes(ax, (2 + 0.45 * count, 1.6 + 0.45 * count))
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, col in zip(*np.nonzero(matrix)):
        ax.text(col, row, matrix[row, col], ha="center", va="center", size=8,
                color="white" if shares[row, col] > 0.5 else "black")  # fmt: skip
    ax.set_xticks(range(count), names, rotation=90)
    ax.set_yticks(range(count), names)
    ax.set(xlabel="predicted", ylabel="ground truth")
    finish(ax.figure, save, own)
    return ax


def plot_losses(path, save=None):
    """Plots the losses of a training over its epochs.

    Args:
        path: of the `log.csv` that training writes, or the folder it lies in.
        save: as in `plot_precision_recall`.

    Returns:
        matplotlib Figure: the total loss and its five parts, in training and validation.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no epochs, or is no such table.
    """
    path = os.path.join(path, "log.csv") if os.path.isdir(path) else os.fspath(path)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or "epoch" not in rows[0] or "loss" not in rows[0]:
        raise ValueError(f"{path}: expected columns such as epoch and loss, and an epoch per line; found "
                         f"{list(rows[0]) if rows else 'nothing'}")  # fmt: skip

    def column(name):
        return [float(row[name]) if row.get(name) else np.nan for row in rows]

    epochs = np.asarray(column("epoch")) + (1 if min(column("epoch")) == 0 else 0)
    figure, axes = new_grid(2, 3, (11, 5.6))
    for ax, name in zip(axes, LOSSES):
        for prefix, label, color in (("", "training", TRAINED), ("val_", "validation", VALIDATED)):
            values = column(prefix + name)
            if np.isfinite(values).any():
                ax.plot(epochs, values, color=color, label=label, marker="." if len(rows) < 30 else "")
        ax.set_title(name.replace("_", " ") if name != "loss" else "total loss", size=10)
        ax.set_ylim(bottom=0)
        ax.grid(alpha=0.3)
        ax.xaxis.get_major_locator().set_params(integer=True)
    for ax in axes[3:]:
        ax.set_xlabel("epoch")
    axes[0].legend()
    finish(figure, save)
    return figure


def display_table(table):
    """Shows a table: as HTML in a notebook, as aligned text elsewhere.

    Args:
        table: list of rows, each a list of cells; the first row holds the titles.
    """
    table = [[str(cell) for cell in row] for row in table]
    if _in_notebook():
        from html import escape

        from IPython.display import HTML, display

        rows = ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table)
        display(HTML("<table>" + "".join(rows) + "</table>"))
        return
    columns = max(map(len, table), default=0)
    widths = [max(len(row[i]) for row in table if i < len(row)) for i in range(columns)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def _in_notebook():
    """Whether this runs in a notebook's kernel."""
    import sys

    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")


def display_weight_stats(model):
    """Shows shape, least, greatest and spread of every weight, and what looks wrong with it.

    A kernel whose values are nearly the same is called dead; a value beyond 1,000, or not a number, an overflow.

    Args:
        model: MaskRCNN, or keras.Model.
    """
    table = [["weight", "shape", "min", "max", "std"]]
    layers = model.get_trainable_layers() if hasattr(model, "get_trainable_layers") else model.layers
    for layer in layers:
        for weight in layer.weights:
            name, values = f"{layer.name}/{weight.name}", np.asarray(weight, np.float32)
            # A bias or a statistic starts with all values the same; a kernel never does.
            dead = values.ndim > 1 and np.ptp(values) < 1e-4
            bad = not np.isfinite(values).all() or np.abs(values).max(initial=0) > 1000
            name += (" *** dead?" if dead else "") + (" *** Overflow?" if bad else "")
            table.append([name, values.shape, *(f"{f(values):+.4f}" for f in (np.min, np.max)), f"{values.std():.4f}"])
    display_table(table)
