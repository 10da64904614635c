"""Figures of boxes on their way: anchors, proposals and regions before and after refinement."""

import numpy as np

from mrcnn.drawing.axes import add_boxes, add_labels, add_lines, finish, make_image_axes, say, show_image
from mrcnn.drawing.canvas import MASK_ALPHA, apply_mask, blend_mask
from mrcnn.drawing.colors import CURVES, choose_colors, instance_colors
from mrcnn.drawing.instances import check_boxes, check_counts, check_masks, class_name, count_of, to_rgb
from mrcnn.geometry.masks import extract_bboxes, unmold_mask

LINE = 1.5  # points
# Shares of the image's longer side: what is shown beside the image, at most, where boxes reach beyond it (anchors as
# large as the image do by 0.71 in the corners; an untrained network's boxes may do without end), and the room added.
MOST_MARGIN, MARGIN_ROOM = 0.75, 0.02
DARKEST = 0.4  # share of its colour that the first anchor of a level keeps
WHITE, DARK_GRAY = (1, 1, 1), (0.25, 0.25, 0.25)
# Lines by visibility: (own colour instead of grey, opacity, style).
VISIBILITIES = ((False, 0.7, "dotted"), (True, 1, "dotted"), (True, 1, "solid"))


def draw_boxes(image, boxes=None, refined_boxes=None, masks=None, captions=None, visibilities=None, title="", ax=None,
               colors=None, figsize=(12, 12), save=None, show=None):
    """Shows boxes, what they are refined to, masks and captions.

    Boxes are dotted unless `visibilities` says otherwise; refined ones are solid, and a line joins the upper left
    corners of the two. Rows of zeros are padding and left out. Boxes that reach beyond the image have room beside it,
    up to three quarters of its longer side.

    Args:
        image: [H, W] or [H, W, channels], as `draw_instances` takes.
        boxes: [N, (y1, x1, y2, x2)] number, pixels.
        refined_boxes: [N, (y1, x1, y2, x2)] number, pixels.
        masks: [H, W, N] bool or number.
        captions: list of N str; None or "" leaves one out.
        visibilities: [N] int: 0 grey and dotted, 1 coloured and dotted, 2 coloured and solid.
        title: str.
        colors: None, one per box; or N colours, (red, green, blue) 0..1 or names.
        ax, figsize, save, show: see `display_instances`.

    Returns:
        matplotlib Axes.

    Raises:
        ValueError: the numbers differ, a box is not finite, masks are not as large as the image, a visibility is
            none of 0, 1, 2.
    """
    canvas = to_rgb(image)
    size = canvas.shape[:2]
    boxes, refined = (given if given is None else check_boxes(given, name)
                      for given, name in ((boxes, "boxes"), (refined_boxes, "refined_boxes")))  # fmt: skip
    masks = None if masks is None else check_masks(masks, size)
    check_counts(boxes=count_of(boxes), refined_boxes=count_of(refined), captions=count_of(captions),
                 masks=None if masks is None else masks.shape[2], visibilities=count_of(visibilities))  # fmt: skip
    count = next((len(rows) for rows in (boxes, refined) if rows is not None), 0)
    colors = choose_colors(colors, [""] * count)
    known = [rows for rows in (boxes, refined) if rows is not None]
    margins = _margins(size, known)
    ax, own = make_image_axes(ax, size + margins[:2] + margins[2:], figsize, title)
    if masks is not None:
        for index, box in enumerate(extract_bboxes(masks)[:count]):
            blend_mask(canvas, box, masks[..., index], colors[index] * 255)
    show_image(ax, own, canvas, title, margins)
    _add_steps(ax, boxes, refined, colors, _check_visibilities(visibilities, count))
    if captions is not None and count:
        last = np.where(refined.any(axis=1, keepdims=True), refined, known[0]) if refined is not None else boxes
        texts = [caption if caption and last[n].any() else "" for n, caption in enumerate(captions)]
        add_labels(ax, last, texts, colors, size)
    if not any(rows.any() for rows in known):
        say(ax, "no boxes")
    finish(ax.figure, own, save, show)
    return ax


def _check_visibilities(visibilities, count):
    visibilities = np.ones(count, int) if visibilities is None else np.asarray(visibilities).reshape(-1)
    if not np.isin(visibilities, (0, 1, 2)).all():
        raise ValueError(f"visibilities must be 0, 1 or 2; received {visibilities.tolist()}")
    return visibilities.astype(int)


def _margins(size, boxes):
    """Pixels (top, left, bottom, right) to show beside an image so that boxes beyond it are seen, within reason."""
    rows, longer = np.concatenate([np.zeros((1, 4)), *boxes]), max(size)
    beyond = np.maximum(0, [*-rows[:, :2].min(axis=0), *(rows[:, 2:] - size).max(axis=0)])
    return np.where(beyond > 0, np.minimum(beyond, MOST_MARGIN * longer) + MARGIN_ROOM * longer, 0)


def _add_steps(ax, boxes, refined, colors, visibilities):
    """Boxes in the style that each is to have, refined ones, and lines from one to the other."""
    if boxes is not None:
        rows = np.flatnonzero(boxes.any(axis=1))
        rows = rows[np.argsort(visibilities[rows], kind="stable")]  # the plainest lie on top
        looks = [VISIBILITIES[visibilities[row]] for row in rows]
        lines = [(*(colors[row] if own else DARK_GRAY), alpha) for row, (own, alpha, _) in zip(rows, looks)]
        if len(rows):
            add_boxes(ax, boxes[rows[visibilities[rows] == 0]], [(*WHITE, 0.5)], LINE)  # grey on grey is not seen
            add_boxes(ax, boxes[rows], lines, LINE, [style for *_, style in looks])
    if refined is not None:
        rows = np.flatnonzero(refined.any(axis=1))
        add_boxes(ax, refined[rows], colors[rows], LINE)
        if boxes is not None:
            rows = rows[boxes[rows].any(axis=1)]
            corners = np.stack([boxes[rows, 1::-1], refined[rows, 1::-1]], axis=1)
            add_lines(ax, corners, colors[rows], LINE / 2)


def draw_anchors(image, levels, labels=None, title="", ax=None, figsize=(8, 8), save=None, show=None):
    """Shows anchors by level of the pyramid: a colour per level, the brighter the later an anchor comes in its level.

    They are few, best those of one cell per level; room is left around the image for those that reach beyond it.

    Args:
        image: [H, W] or [H, W, channels], as `draw_instances` takes.
        levels: list of [N, (y1, x1, y2, x2)] number, pixels, one per level.
        labels: list of str, one per level, for the legend; by default P2, P3 ...
        title: str.
        ax, figsize, save, show: see `display_instances`.

    Returns:
        matplotlib Axes.

    Raises:
        ValueError: levels and labels differ in number, a box is not finite.
    """
    from matplotlib.colors import to_rgb as rgb_of
    from matplotlib.lines import Line2D

    canvas = to_rgb(image)
    size = canvas.shape[:2]
    levels = [check_boxes(boxes, f"levels[{number}]") for number, boxes in enumerate(levels)]
    labels = [f"P{number}" for number in range(2, 2 + len(levels))] if labels is None else list(labels)
    check_counts(levels=len(levels), labels=len(labels))
    margins = _margins(size, levels)
    ax, own = make_image_axes(ax, size + margins[:2] + margins[2:], figsize, title)
    show_image(ax, own, canvas, title, margins)
    keys = []
    for number, (boxes, label) in enumerate(zip(levels, labels)):
        color = np.array(rgb_of(CURVES[number % len(CURVES)]))
        brightness = np.linspace(1, DARKEST, max(len(boxes), 2))[: len(boxes)][::-1, None]
        add_boxes(ax, boxes, ["white"] * len(boxes), LINE + 1)  # seen on any ground
        add_boxes(ax, boxes, color * brightness, LINE)
        keys.append(Line2D([], [], color=color, linewidth=2 * LINE, label=label))
    if keys:
        ax.legend(handles=keys, loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=10)
    else:
        say(ax, "no anchors")
    finish(ax.figure, own, save, show)
    return ax


def draw_rois(image, rois, refined_rois, mask, class_ids, class_names, limit=10, ax=None, title="", figsize=(12, 12),
              save=None, show=None):
    """Shows regions of interest drawn at random: background dotted in grey, others with class, mask and refinement.

    Prints how many regions are positive and negative. The draw is numpy's global one, which `np.random.seed` repeats.

    Args:
        image: [H, W] or [H, W, channels], as `draw_instances` takes.
        rois: [N, (y1, x1, y2, x2)] number, pixels; rows of zeros are padding.
        refined_rois: [N, (y1, x1, y2, x2)] number, pixels.
        mask: [N, height, width] float, 0..1, of each region, as the mask head gives it; or None.
        class_ids: [N] int; 0 is background.
        class_names: list of str by class id; None writes the numbers.
        limit: int, most regions to show.
        title: str; by default how many are shown.
        ax, figsize, save, show: see `display_instances`.

    Returns:
        matplotlib Axes.

    Raises:
        ValueError: the numbers differ, a box is not finite, a class id has no name.
    """
    canvas = to_rgb(image)
    rois, refined = check_boxes(rois, "rois"), check_boxes(refined_rois, "refined_rois")
    class_ids = np.asarray(class_ids).reshape(-1).astype(int)
    check_counts(rois=len(rois), refined_rois=len(refined), mask=count_of(mask), class_ids=len(class_ids))
    names = [class_name(class_id, class_names) for class_id in class_ids.tolist()]
    real = np.flatnonzero(rois.any(axis=1))
    shown = np.sort(np.random.choice(real, min(limit, len(real)), replace=False))
    positive = class_ids[shown] > 0
    colors = np.array(instance_colors(len(shown))).reshape(-1, 3)
    for row, color in zip(shown[positive] if mask is not None else (), colors[positive]):
        apply_mask(canvas, unmold_mask(np.asarray(mask[row]), rois[row].astype(int), canvas.shape), color, MASK_ALPHA)
    counts = (class_ids[real] > 0).sum(), (class_ids[real] <= 0).sum()
    print(f"{counts[0]} positive and {counts[1]} negative regions, {len(np.unique(rois[real], axis=0))} different ones"
          + (f"; {counts[0] / len(real):.0%} positive" if len(real) else ""))  # fmt: skip
    refined = np.where(positive[:, None], refined[shown], 0)
    captions = [names[row] if is_positive else "" for row, is_positive in zip(shown, positive)]
    title = title or f"{len(shown)} of {len(real)} regions"
    return draw_boxes(canvas, rois[shown], refined, None, captions, positive.astype(int), title, ax, colors, figsize,
                      save, show)  # fmt: skip
