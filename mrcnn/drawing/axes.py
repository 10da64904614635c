"""Figures and axes: made where the caller gives none, shown or saved at the end; what images are drawn with.

Pixels of an image lie between whole numbers here, so that a box (y1, x1, y2, x2) is drawn at its own coordinates.
"""

import os
import warnings
from pathlib import Path

import numpy as np

from mrcnn.drawing.colors import ink_on
from mrcnn.drawing.labels import place_labels

TITLE_SIZE = 14  # points
TEXT_SIZES = (7, 12)  # points, of labels: in the smallest and in large axes


# ------------------------------------------------------------------ figures
def make_axes(ax, figsize):
    """(axes, whether they are our own) to plot on."""
    if ax is not None:
        return ax, False
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=figsize, layout="constrained")[1], True


def make_image_axes(ax, size, figsize, title=""):
    """(axes, whether they are our own) for an image of (height, width), which fills its figure within `figsize`."""
    if ax is not None:
        return ax, False
    import matplotlib.pyplot as plt

    scale = min(figsize[0] / size[1], figsize[1] / size[0])
    width, height = max(size[1] * scale, 1), max(size[0] * scale, 1)
    head = 1.5 * TITLE_SIZE / 72 * len(title.splitlines())
    figure = plt.figure(figsize=(width, height + head))
    return figure.add_axes((0, 0, 1, height / (height + head))), True


def finish(figure, own, save=None, show=None):
    """Saves and shows a figure as the caller wishes: by default an own one is shown unless it is saved."""
    if save is not None:
        save_figure(figure, save)
    if not own and not show:
        return
    import matplotlib.pyplot as plt

    if show or (show is None and save is None):
        with warnings.catch_warnings():  # without a window there is nothing to show, and nothing to complain about
            warnings.filterwarnings("ignore", message=".*non-interactive", category=UserWarning)
            plt.show()
    elif save is not None:
        plt.close(figure)  # or a loop that saves a thousand would keep them all


def save_figure(figure, path):
    """Writes a figure, as the kind of file that the path ends in; it is there whole or not at all.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: an ending that matplotlib does not know.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(path.parent)!r} to save a figure to; create it first")
    part = path.with_name(f"{path.name}.part")
    try:
        figure.savefig(part, format=path.suffix[1:] or "png", bbox_inches="tight", pad_inches=0.05)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


# ------------------------------------------------------------------ on an image
def show_image(ax, own, picture, title="", margins=(0, 0, 0, 0)):
    """Shows [H, W, 3] uint8 with white beside it, (top, left, bottom, right) pixels, without ticks.

    The title is as large as others in a figure that is the caller's, and large in our own, if there is room.
    """
    height, width = picture.shape[:2]
    top, left, bottom, right = margins
    ax.imshow(picture, extent=(0, width, height, 0))
    ax.set(xlim=(-left, width + right), ylim=(height + bottom, -top))
    ax.axis("off")
    if title:
        most = TITLE_SIZE if own else _usual_title_size()
        ax.set_title(title, fontsize=fitting_size([title], _extent(ax)[0], min(8, most), most), parse_math=False)


def _usual_title_size():
    """Points of titles that matplotlib's settings ask for."""
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties

    return FontProperties(size=rcParams["axes.titlesize"]).get_size_in_points()


def fitting_size(texts, width, least, most):
    """Points of a font in which no line of some texts is wider than `width` points, within limits."""
    longest = max((len(line) for text in texts for line in str(text).splitlines()), default=0)
    return float(np.clip(width / (0.62 * max(longest, 1)), least, most))


def say(ax, text):
    """Writes a message into the middle of the axes."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", fontsize=TEXT_SIZES[1], color="black",
            bbox={"facecolor": "white", "edgecolor": "0.5", "boxstyle": "round"})  # fmt: skip


def add_boxes(ax, boxes, colors, widths, styles="solid"):
    """Draws [N, (y1, x1, y2, x2)] with a colour per box, and line widths and styles per box or for all."""
    y1, x1, y2, x2 = np.asarray(boxes, float).reshape(-1, 4).T
    corners = np.stack([x1, y1, x2, y1, x2, y2, x1, y2, x1, y1], axis=1).reshape(-1, 5, 2)
    add_lines(ax, corners, colors, widths, styles)


def add_lines(ax, lines, colors, widths, styles="solid"):
    """Draws lines, each [points, (x, y)]."""
    from matplotlib.collections import LineCollection

    if len(lines):
        ax.add_collection(LineCollection(lines, colors=colors, linewidths=widths, linestyles=styles), autolim=False)


def add_labels(ax, boxes, captions, colors, size):
    """Writes a caption to each box on a ground of its colour, within the image of (height, width)."""
    from matplotlib.collections import PolyCollection

    scale = points_per_pixel(ax)
    text_size = np.clip(min(size) * scale / 50, *TEXT_SIZES)
    within = (size[1] * scale, size[0] * scale)
    grounds, filled = [], []
    for index, caption, font, (x1, y1, x2, y2), _ in place_labels(boxes * scale, captions, within, text_size,
                                                                  TEXT_SIZES[0] - 1):  # fmt: skip
        x1, y1, x2, y2 = (value / scale for value in (x1, y1, x2, y2))
        grounds.append([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])
        filled.append(colors[index])
        ax.text((x1 + x2) / 2, (y1 + y2) / 2, caption, fontsize=font.size, color=ink_on(colors[index]), ha="center",
                va="center_baseline", parse_math=False, clip_on=True, zorder=5)  # fmt: skip
    if grounds:
        ax.add_collection(PolyCollection(grounds, facecolors=filled, edgecolors="none", zorder=4), autolim=False)


def points_per_pixel(ax):
    """Points on paper that a pixel of the image measures on axes whose limits are set."""
    seen = abs(np.diff(ax.get_xlim())[0]), abs(np.diff(ax.get_ylim())[0])
    return float((_extent(ax) / seen).min())


def _extent(ax):
    """(width, height) of the axes in points."""
    return np.asarray(ax.get_window_extent().size) * 72 / ax.figure.dpi
