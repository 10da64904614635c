"""What all figures share: axes, labels on images, files. Matplotlib is imported when a figure is made, not before."""

import os

import numpy as np

from mrcnn.drawing.canvas import free_place

WITHOUT_WINDOW = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}
TEXT_SIZES = (7, 16)  # points, least and most


def new_axes(ax=None, figsize=(16, 16)):
    """(axes, whether they were made here)."""
    import matplotlib.pyplot as plt

    if ax is not None:
        return ax, False
    return plt.subplots(figsize=figsize, layout="constrained")[1], True


def new_grid(rows, cols, figsize):
    """(figure, list of rows * cols axes)."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(rows, cols, figsize=figsize, layout="constrained", squeeze=False)
    return figure, list(axes.flat)


def finish(figure, save=None, show=True):
    """Writes the figure to a file, which appears when it is whole, or else shows it where there is a window for it."""
    import matplotlib.pyplot as plt

    if save is not None:
        save = os.fspath(save)
        kind = os.path.splitext(save)[1].lstrip(".").lower() or "png"
        supported = figure.canvas.get_supported_filetypes()
        if kind not in supported:
            raise ValueError(f"save = {save!r}: cannot write .{kind}; known are {', '.join(sorted(supported))}")
        try:
            figure.savefig(f"{save}.part", format=kind, bbox_inches="tight")
            os.replace(f"{save}.part", save)
        finally:
            if os.path.exists(f"{save}.part"):
                os.remove(f"{save}.part")
    elif show and plt.get_backend().lower() not in WITHOUT_WINDOW:
        plt.show()


def show_image(ax, image, title=""):
    """An image without ticks, whole pixels at whole coordinates, and nothing cut off at its border."""
    height, width = image.shape[:2]
    ax.imshow(image, extent=(0, width, height, 0), interpolation="antialiased")
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_title(title, size="large")
    ax.axis("off")


def pixel_size(ax, image_size):
    """How many points on paper a pixel of the image takes."""
    area = ax.get_window_extent()
    scale = min(area.width / image_size[1], area.height / image_size[0])
    return scale * 72 / ax.figure.dpi


def write_labels(ax, labels, image_size):
    """Writes (box, caption, colour) each at its box, where it hides the others least.

    Args:
        ax: axes that show an image.
        labels: list of (box (y1, x1, y2, x2) pixels, str, (red, green, blue) 0..1).
        image_size: (height, width), pixels.
    """
    points = pixel_size(ax, image_size)
    largest = float(np.clip(min(image_size) * points / 45, *TEXT_SIZES))
    placed = np.zeros((0, 4))
    for box, caption, color in labels:
        if not caption:
            continue
        extent = max(box[2] - box[0], box[3] - box[1]) * points
        size = float(np.clip(extent / 6, max(6, largest / 2), largest))  # small objects stay visible
        width, height = (0.66 * len(caption) + 0.4) * size / points, 1.5 * size / points
        x, y = free_place(box, (width, height), (image_size[1], image_size[0]), placed)
        placed = np.vstack([placed, (x, y, x + width, y + height)])
        dark = np.dot(color, (0.299, 0.587, 0.114)) < 0.55
        ax.text(
            x + 0.2 * size / points, y + height / 2, caption, size=size, va="center", parse_math=False, clip_on=True,
            color="white" if dark else "black", bbox={"facecolor": color, "edgecolor": "none", "pad": 0.15 * size},
        )  # fmt: skip


def outline(ax, box, color, style="-", width=1.5, alpha=1.0):
    """A box (y1, x1, y2, x2) in pixels, as lines."""
    from matplotlib.patches import Rectangle

    y1, x1, y2, x2 = (float(v) for v in box)
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linestyle=style, linewidth=width,
                           alpha=alpha))  # fmt: skip


def contour(ax, mask, corner, color):
    """The rim of a mask [h, w] whose upper left pixel lies at `corner` (y, x) of the image."""
    from matplotlib.patches import Polygon
    from skimage.measure import find_contours

    for line in find_contours(np.pad(mask, 1).astype(np.uint8), 0.5):
        # Contours run through the centres of pixels, which lie half a pixel inside; the padding shifts by a whole one.
        y, x = (line - 0.5 + np.asarray(corner)).T
        ax.add_patch(Polygon(np.column_stack([x, y]), fill=False, edgecolor=color, linewidth=1))
