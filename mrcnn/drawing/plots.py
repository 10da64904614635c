"""Plots of how well a model does: overlaps and precision of an image and of a data set, confusions, losses."""

import math
import os
from pathlib import Path

import numpy as np

from mrcnn.data.files import read_table
from mrcnn.drawing.axes import finish, make_axes, say
from mrcnn.drawing.colors import CURVES, PREDICTION
from mrcnn.drawing.instances import class_name

BLUE = (0.0, 0.45, 0.7)
MATRIX_SIDE = 12  # inches, the longest of the figure of a matrix
# Points: the sizes of names beside a matrix, where they fit, and of the numbers in its cells.
NAME_SIZES, NUMBER_SIZES = (5, 10), (5.5, 8)
LOSSES = {
    "loss": "total", "rpn_class_loss": "RPN: object or not", "rpn_bbox_loss": "RPN: boxes",
    "mrcnn_class_loss": "classes", "mrcnn_bbox_loss": "boxes", "mrcnn_mask_loss": "masks",
}  # fmt: skip
# With the colours of curves, more than one plot can hold.
STYLES = ("-", "--", "-.", ":")


# ------------------------------------------------------------------ precision and recall
def plot_precision_recall(AP, precisions, recalls, ax=None, title="", save=None, show=None):
    """Plots the precision-recall curve of an image, as `compute_ap` gives it.

    Args:
        AP: float, average precision.
        precisions: [M] float.
        recalls: [M] float, rising.
        ax: matplotlib Axes to draw on; None makes a figure, and shows it unless `save` is given.
        title: str; by default the average precision.
        save, show: see `display_instances`.

    Returns:
        matplotlib Axes.

    Raises:
        ValueError: precisions and recalls differ in number.
    """
    precisions, recalls = np.asarray(precisions, float).reshape(-1), np.asarray(recalls, float).reshape(-1)
    if precisions.shape != recalls.shape:
        raise ValueError(f"precisions and recalls must be equally many; received {len(precisions)}, {len(recalls)}")
    ax, own = make_axes(ax, (5, 5))
    # The precision at a recall holds back to the one before.
    ax.step(recalls, precisions, where="pre", color=BLUE)
    ax.fill_between(recalls, precisions, step="pre", color=BLUE, alpha=0.15, linewidth=0)
    _precision_axes(ax, title or f"Precision-recall curve, AP = {AP:.3f}")
    finish(ax.figure, own, save, show)
    return ax


def _precision_axes(ax, title):
    ax.set(xlim=(0, 1.02), ylim=(0, 1.05), xlabel="recall", ylabel="precision", title=title)
    ax.grid(color="0.9")
    ax.set_axisbelow(True)


def plot_dataset_precision_recall(result, kind=None, classes=None, recalls=None, ax=None, title="", save=None,
                                  show=None):
    """Plots precision over recall for a whole data set; the area under a curve is the average precision beside it.

    Args:
        result: what `MaskRCNN.evaluate` returns; a pycocotools COCOeval after `accumulate`; or a dict label ->
            [recalls] precisions.
        kind: "segm" or "bbox", of an evaluation's result; by default masks where there are any.
        classes: None plots the mean over classes at IoU 0.5, 0.55 ... 0.95; a list of class names (or of category ids,
            of a COCOeval), or "all", plots those at IoU 0.5.
        recalls: [recalls] float, of a dict of precisions; by default evenly from 0 to 1.
        ax, title, save, show: see `plot_precision_recall`.

    Returns:
        matplotlib Axes.

    Raises:
        ValueError: the result has no curves, or not of this kind or class.
    """
    recalls, curves, name = _curves_of(result, kind, classes, recalls)
    ax, own = make_axes(ax, (7, 5))
    is_scale = classes is None and name is not None
    import matplotlib

    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(curves)))
    for number, (label, precisions) in enumerate(curves.items()):
        look = {"color": shades[number]} if is_scale else {"color": CURVES[number % len(CURVES)],
                "linestyle": STYLES[number // len(CURVES) % len(STYLES)]}  # fmt: skip
        ax.plot(recalls, precisions, label=f"{label}: {np.mean(precisions):.3f}", **look)
    _precision_axes(ax, title or f"Precision and recall{f' of {name}' if name else ''}")
    if curves:
        ax.legend(title=("mean over classes\nIoU: AP" if is_scale else "AP at IoU 0.5" if name else "AP"), fontsize=8,
                  loc="center left", bbox_to_anchor=(1.01, 0.5), ncols=1 + len(curves) // 25)  # fmt: skip
    else:
        say(ax, "no objects")
    finish(ax.figure, own, save, show)
    return ax


def _curves_of(result, kind, classes, recalls):
    """(recalls, {label: precisions}, what they are of or None) for all that `plot_dataset_precision_recall` takes."""
    if hasattr(result, "eval") and hasattr(result, "params"):
        return _curves_of_cocoeval(result, classes)
    if not isinstance(result, dict):
        raise ValueError(f"result must be that of evaluate, a COCOeval or a dict; received {type(result).__name__}")
    if "curves" not in result and recalls is None and {"bbox", "segm"} & set(result):
        raise ValueError("the result of this evaluation has no entry 'curves': evaluate again")
    if "curves" not in result:
        recalls = recalls if recalls is not None else np.linspace(0, 1, max(map(len, result.values()), default=2))
        for label, precisions in result.items():
            if len(precisions) != len(recalls):
                raise ValueError(f"{label!r} has {len(precisions)} precisions for {len(recalls)} recalls")
        return np.asarray(recalls, float), dict(result), None
    known = result["curves"]
    kind = kind or ("segm" if "segm" in known else "bbox")
    if kind not in known:
        raise ValueError(f"the result has no curves of {kind!r}, only of {sorted(set(known) - {'recalls'})}")
    chosen = known[kind]["mean"] if classes is None else _pick(known[kind]["per_class"], classes)
    return np.asarray(known["recalls"]), chosen, {"bbox": "boxes", "segm": "masks"}[kind]


def _pick(curves, classes):
    classes = list(curves) if isinstance(classes, str) and classes == "all" else classes
    if unknown := [name for name in classes if name not in curves]:
        raise ValueError(f"there are no objects of {unknown} to have a curve of; there are of {list(curves)}")
    return {name: curves[name] for name in classes}


def _curves_of_cocoeval(evaluation, classes):
    if not evaluation.eval:
        raise ValueError("run evaluate() and accumulate() of the COCOeval first")
    precision, params = evaluation.eval["precision"][:, :, :, 0, -1], evaluation.params  # [IoU, recall, class]
    seen = [k for k in range(precision.shape[2]) if (precision[0, :, k] > -1).all()]
    name = {"bbox": "boxes", "segm": "masks"}.get(params.iouType, params.iouType)
    if classes is None:
        mean = precision[:, :, seen].mean(axis=2) if seen else ()
        return params.recThrs, {f"{iou:.2f}": row for iou, row in zip(params.iouThrs, mean)}, name
    half = int(np.argmin(abs(params.iouThrs - 0.5)))
    return params.recThrs, _pick({params.catIds[k]: precision[half, :, k] for k in seen}, classes), name


# ------------------------------------------------------------------ matrices
def plot_overlaps(gt_class_ids, pred_class_ids, pred_scores, overlaps, class_names, threshold=0.5, ax=None, title="",
                  save=None, show=None):
    """Plots the overlap of each prediction with each object, and whether the class is right where it is large.

    Args:
        gt_class_ids: [N] int; zeros are padding.
        pred_class_ids: [M] int, in the order of the rows of `overlaps`; zeros are padding.
        pred_scores: [M] float.
        overlaps: [M, N] float, intersection over union, as `compute_matches` gives it.
        class_names: list of str by class id; None writes the numbers.
        threshold: float, overlap from which on a cell says "match" or "wrong".
        ax, title, save, show: see `plot_precision_recall`.

    Returns:
        matplotlib Axes.

    Raises:
        ValueError: overlaps do not fit the numbers of ids and scores; a class id has no name.
    """
    gt_class_ids, pred_class_ids = (np.asarray(ids).reshape(-1).astype(int) for ids in (gt_class_ids, pred_class_ids))
    gt_class_ids, pred_class_ids = gt_class_ids[gt_class_ids != 0], pred_class_ids[pred_class_ids != 0]
    overlaps, (rows, cols) = np.asarray(overlaps, float), (len(pred_class_ids), len(gt_class_ids))
    if overlaps.size != rows * cols or len(pred_scores) < rows or (overlaps.size and overlaps.shape != (rows, cols)):
        raise ValueError(f"overlaps must be [predictions, objects] = [{rows}, {cols}], with as many scores; received "
                         f"shape {overlaps.shape} and {len(pred_scores)} scores")
    gt_names = [class_name(class_id, class_names) for class_id in gt_class_ids.tolist()]
    names = [class_name(class_id, class_names) for class_id in pred_class_ids.tolist()]
    ax, own = make_axes(ax, (min(2.5 + 0.7 * cols, MATRIX_SIDE), min(1.8 + 0.5 * rows, MATRIX_SIDE)))
    ax.set(xlabel="ground truth", ylabel="predictions")
    told = f"match or wrong class: {threshold:g} and more"
    if not overlaps.size:
        say(ax, "no predictions" if not rows else "no ground truth")
        ax.set(xticks=[], yticks=[])
    else:
        shown = ax.imshow(overlaps, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        _name_cells(ax, [f"{name} {score:.2f}" for name, score in zip(names, pred_scores)], gt_names)
        same, large = pred_class_ids[:, None] == gt_class_ids, overlaps >= threshold
        notes = np.where(large, np.where(same, "\nmatch", "\nwrong"), "")
        texts = [[f"{overlaps[i, j]:.2f}{notes[i, j]}" if overlaps[i, j] > 0 else "" for j in range(cols)]
                 for i in range(rows)]  # fmt: skip
        if not _write_cells(ax, texts, overlaps):
            told = f"{threshold:g} and more: a dot marks a match, a cross a wrong class"
            _mark_cells(ax, large & same, "o", "white", 0.4)
            _mark_cells(ax, large & ~same, "x", CURVES[4], 0.8)  # seen on light and on dark blue
            ax.figure.colorbar(shown, ax=ax, label="IoU", fraction=0.046)
    ax.set_title(title or f"Overlaps (IoU)\n{told}", wrap=True)
    finish(ax.figure, own, save, show)
    return ax


def _cell_size(ax, rows, cols):
    """(height, width) of a cell of a matrix that fills the axes, points."""
    extent = ax.get_window_extent()
    height, width = extent.height / rows * 72 / ax.figure.dpi, extent.width / cols * 72 / ax.figure.dpi
    return (height, width) if ax.get_aspect() == "auto" else (min(height, width),) * 2


def _name_cells(ax, row_names, col_names):
    """Writes the names of rows and columns as large as there is room for; of very many every second, third ..."""
    height, width = _cell_size(ax, len(row_names), len(col_names))
    for names, room, axis, angle in ((row_names, height, ax.yaxis, 0), (col_names, width, ax.xaxis, 90)):
        size = np.clip(0.8 * room, *NAME_SIZES)
        step = math.ceil(size / room)
        axis.set_ticks(range(0, len(names), step), names[::step], rotation=angle, fontsize=size)


def _write_cells(ax, texts, shades):
    """Writes into the cells of a matrix whose shades go from 0, light, to 1, dark, if all of it can be read.

    Returns whether it did.
    """
    height, width = _cell_size(ax, *np.shape(texts))
    cells = [text.split("\n") for row in texts for text in row]
    longest, most_lines = max(len(line) for lines in cells for line in lines), max(map(len, cells))
    size = min(width / (0.7 * max(longest, 1)), height / (1.3 * most_lines), NUMBER_SIZES[1])
    if size < NUMBER_SIZES[0]:
        return False
    for (i, j), shade in np.ndenumerate(shades):
        ax.text(j, i, texts[i][j], ha="center", va="center", fontsize=size, color="white" if shade > 0.6 else "black")
    return True


def _mark_cells(ax, where, marker, color, share):
    """Puts a marker, which fills a share of its side, into cells of a matrix."""
    side = min(*_cell_size(ax, *where.shape), 12) * share
    rows, cols = np.nonzero(where)
    ax.plot(cols, rows, marker, color=color, markersize=side, markeredgewidth=side / 4)


def plot_confusion_matrix(matrix, class_names=None, ax=None, title="", save=None, show=None):
    """Plots which classes are taken for which; shades are shares of a row, the numbers counts.

    Args:
        matrix: what `MaskRCNN.evaluate` or `evaluation.confusion` returns, or [classes, classes] int: rows the true
            classes, columns what they are taken for; the first of both is the background (objects missed, detections
            of nothing).
        class_names: list of str by class id, the background's first; None takes those of an evaluation's result, or
            writes the numbers. Classes without objects and detections are left out.
        ax, title, save, show: see `plot_precision_recall`.

    Returns:
        matplotlib Axes.

    Raises:
        ValueError: the matrix is empty or not square, or has negative or other than finite values; the names do not
            fit it.
    """
    threshold = ""
    if isinstance(matrix, dict):
        known = matrix.get("confusion", matrix)
        if "matrix" not in known:
            raise ValueError("the result of this evaluation has no entry 'confusion': evaluate again")
        matrix, class_names = known["matrix"], class_names or known["names"]
        threshold = f" (IoU {known['iou_threshold']:g}, score {known['score_threshold']:g})"
    matrix = np.asarray(matrix, float)
    is_square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] > 0
    if not is_square or not (matrix >= 0).all() or np.isinf(matrix).any():
        raise ValueError(f"matrix must be square and hold counts; received shape {matrix.shape}")
    if class_names is not None and len(class_names) != len(matrix):
        raise ValueError(f"class_names has {len(class_names)} names for a matrix of {len(matrix)} classes")
    names = ["background", *(class_name(n, class_names) for n in range(1, len(matrix)))][: len(matrix)]
    used = np.flatnonzero(matrix.any(axis=0) | matrix.any(axis=1))
    used = used if len(used) else np.arange(len(matrix))
    used = np.roll(used, -1) if len(used) and used[0] == 0 else used  # the background last: classes are what matters
    matrix, names = matrix[np.ix_(used, used)], [names[n] for n in used]
    side = min(2.5 + 0.6 * len(used), MATRIX_SIDE - 0.8)
    ax, own = make_axes(ax, (side + 0.8, side))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shown = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    _name_cells(ax, names, names)
    _write_cells(ax, [[f"{count:g}" if count else "" for count in row] for row in matrix], shares)
    ax.set(xlabel="predicted (background: missed)", ylabel="true (background: false detections)",
           title=title or f"Confusion matrix{threshold}")  # fmt: skip
    ax.figure.colorbar(shown, ax=ax, label="share of the row", fraction=0.046)
    finish(ax.figure, own, save, show)
    return ax


# ------------------------------------------------------------------ losses
def plot_losses(csv, ax=None, title="", save=None, show=None):
    """Plots the losses of a training, and those on the validation data, by epoch.

    Args:
        csv: path of the `log.csv` that training writes, or of its folder. Of an epoch that was run again after a
            resumption the last values count.
        ax: matplotlib Axes to draw the total loss on; None makes a figure with a panel per loss, and shows it unless
            `save` is given.
        title: str.
        save, show: see `display_instances`.

    Returns:
        matplotlib Figure, or the Axes given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a file, or has no epoch yet.
    """
    epochs, values = _read_losses(csv)
    if ax is not None:
        _plot_loss(ax, epochs, values, "loss", title or "total loss")
        ax.legend()
        finish(ax.figure, False, save, show)
        return ax
    import matplotlib.pyplot as plt

    names = [name for name in LOSSES if name in values]
    cols = min(len(names), 3)
    rows = math.ceil(len(names) / cols)
    figure, axes = plt.subplots(rows, cols, figsize=(4 * cols, 3 * rows), squeeze=False, layout="constrained")
    for panel in axes.flat[len(names) :]:
        panel.axis("off")
    for panel, name in zip(axes.flat, names):
        _plot_loss(panel, epochs, values, name, LOSSES[name])
    axes[0, 0].legend()
    if title:
        figure.suptitle(title)
    finish(figure, True, save, show)
    return figure


def _plot_loss(ax, epochs, values, name, title):
    for key, label, color, style in ((name, "training", BLUE, "-"), (f"val_{name}", "validation", PREDICTION, "--")):
        if key in values and np.isfinite(values[key]).any():
            known = np.isfinite(values[key])
            ax.plot(epochs[known], values[key][known], style, color=color, label=label, marker=".", markersize=4)
    ax.set(title=title, xlabel="epoch", ylabel="loss")
    ax.set_ylim(bottom=0)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(color="0.9")


def _read_losses(path):
    """(epochs counted from 1, {column: [epochs] float, NaN where there is none})."""
    path = Path(path)
    path = path / "log.csv" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {os.fspath(path)!r}: training writes log.csv after its first epoch")
    columns, lines = read_table(path)
    if not {"epoch", "loss"} <= set(columns):
        raise ValueError(f"{path} is no log of a training: it lacks the columns epoch and loss, and has {columns}")
    try:
        rows = {int(float(row["epoch"])): row for row in lines}
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: an epoch is no number ({error})") from error
    if not rows:
        raise ValueError(f"{path} has no epoch yet")
    epochs = sorted(rows)
    names = [name for name in columns if name.removeprefix("val_") in LOSSES]
    return np.array(epochs) + 1, {name: np.array([_number(rows[n][name]) for n in epochs]) for name in names}


def _number(text):
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan
