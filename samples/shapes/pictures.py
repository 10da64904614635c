"""Pictures of images with their objects, for the Shapes sample."""

import math

import numpy as np
from matplotlib.figure import Figure  # not pyplot, which would choose a window system
from matplotlib.patheffects import withStroke

from mrcnn.data.files import atomic

COLORS = ("#ff4d6d", "#29c7ff", "#ffd60a", "#8aff80")  # by class id


def save_picture(path, panels, class_names, columns=1):
    """Draws images with their objects side by side into a PNG file, which is replaced as a whole.

    Args:
        path: of the file.
        panels: list of (title, image [H, W, 3] uint8, result of `detect` or `truth`, whether to write the scores).
        class_names: list of str, by class id.
        columns: int, panels per row.
    """
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3 * columns, 3.25 * rows), dpi=120, layout="constrained", facecolor="white")
    for axes, (title, image, result, with_scores) in zip(figure.subplots(rows, columns, squeeze=False).flat, panels):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(title, fontsize=9)
        draw_objects(axes, result, class_names, with_scores)
    for axes in figure.axes:
        axes.set_axis_off()
    save_figure(figure, path)


def draw_objects(axes, result, class_names, with_scores):
    """Draws box, outline, translucent mask and name of each object into the axes of an image."""
    shadow = [withStroke(linewidth=3, foreground="black", alpha=0.6)]
    for (y1, x1, y2, x2), class_id, score, mask in zip(
        result["rois"], result["class_ids"], result["scores"], np.moveaxis(result["masks"], -1, 0), strict=True
    ):
        color = COLORS[class_id % len(COLORS)]
        # A frame of zeros closes the outline of a mask that touches the border.
        extent = np.arange(-1, mask.shape[1] + 1), np.arange(-1, mask.shape[0] + 1)
        framed = np.pad(mask, 1).astype(float)
        axes.contourf(*extent, framed, levels=[0.5, 2], colors=[color], alpha=0.35)
        axes.contour(*extent, framed, levels=[0.5], colors=[color], linewidths=1.4).set_path_effects(shadow)
        corners = [x1 - 0.5, x2 - 0.5, x2 - 0.5, x1 - 0.5, x1 - 0.5], [y1 - 0.5, y1 - 0.5, y2 - 0.5, y2 - 0.5, y1 - 0.5]
        axes.plot(*corners, color=color, linewidth=0.8, linestyle=(0, (5, 3)))
        caption = class_names[class_id] + (f" {score:.2f}" if with_scores else "")
        place = {"ha": "left", "va": "top", "fontsize": 6.5, "color": "black", "clip_on": True}
        axes.text(x1 + 1, y1 + 1, caption, bbox={"facecolor": color, "alpha": 0.85, "pad": 1.2, "lw": 0}, **place)


def save_figure(figure, path):
    """Saves a figure as PNG; under its name there is only ever a whole file."""
    with atomic(path) as unfinished:
        figure.savefig(unfinished, format="png")
