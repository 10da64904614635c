"""Figures of instances: images side by side, detections, their differences from the truth, masks per class."""

import numpy as np
from skimage.measure import find_contours

from mrcnn.drawing.axes import (
    add_boxes,
    add_labels,
    add_lines,
    finish,
    fitting_size,
    make_image_axes,
    points_per_pixel,
    say,
    show_image,
)
from mrcnn.drawing.canvas import MASK_ALPHA, blend_mask, large_first
from mrcnn.drawing.colors import PREDICTION, TRUTH, choose_colors, instance_colors
from mrcnn.drawing.instances import check_counts, check_masks, class_name, make_instances, to_rgb
from mrcnn.geometry.boxes import compute_overlaps
from mrcnn.geometry.metrics import by_falling_score, match_overlaps

ROW_WIDTH = 14  # inches, of a whole row of images
CELL_WIDTH = 3.5  # inches, of an image where a row is not full
TITLE_SIZES = (7, 13)  # points, of titles in rows of images
FRAME = "0.6"  # grey


# ------------------------------------------------------------------ images side by side
def display_images(images, titles=None, cols=4, cmap=None, norm=None, interpolation=None, save=None, show=None):
    """Shows images in rows.

    Args:
        images: list of [H, W, channels] or [H, W], of any kind that `draw_instances` takes; two-dimensional floats
            and whole numbers beyond 0..255, such as activations, are shown from their lowest to their highest value.
        titles: list of str, one per image.
        cols: int, images per row.
        cmap, norm, interpolation: how matplotlib's `imshow` colours and resamples two-dimensional images; grey if None.
        save: path to write the figure to, as PNG, PDF, SVG ...
        show: bool, whether to call `plt.show()`; None: unless `save` is given.

    Returns:
        matplotlib Figure.

    Raises:
        ValueError: titles and images differ in number, `cols` is not 1 or more, an image cannot be shown.
    """
    images = list(images)
    titles = [""] * len(images) if titles is None else list(titles)
    check_counts(images=len(images), titles=len(titles))
    if cols < 1:
        raise ValueError(f"cols must be 1 or more; received {cols}")
    figure = _grid(images, titles, min(cols, max(len(images), 1)), cmap, norm, interpolation)
    finish(figure, True, save, show)
    return figure


def _grid(images, titles, cols, cmap=None, norm=None, interpolation=None):
    """A figure of images; no row is empty, and cells that no image is left for are."""
    import matplotlib.pyplot as plt

    rows = max(-(-len(images) // cols), 1)
    width = ROW_WIDTH if cols >= 4 else CELL_WIDTH * cols
    tallest = max((image.shape[0] / max(image.shape[1], 1) for image in map(np.asarray, images)), default=1)
    head = 0.3 * max((len(str(title).splitlines()) for title in titles), default=0)
    figure, axes = plt.subplots(rows, cols, figsize=(width, rows * (width / cols * min(tallest, 3) + head)),
                                squeeze=False, layout="compressed")  # fmt: skip
    for ax in axes.flat[len(images) :]:
        ax.axis("off")
    title_size = fitting_size(titles, 72 * width / cols, *TITLE_SIZES)
    for ax, image, title in zip(axes.flat, images, titles):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(color=FRAME, linewidth=0.5)  # or a white image would not be seen on a white page
        if (image := np.asarray(image)).ndim == 2 and _is_map(image, cmap, norm):
            shown = ax.imshow(image, cmap=cmap or "gray", norm=norm, interpolation=interpolation)
            if norm is None and image.size and (value := image.min()) == image.max():
                shown.set_clim(min(0, value), max(1, value))  # a mask of ones is white, not black
        else:
            ax.imshow(to_rgb(image), interpolation=interpolation)
        ax.set_title(str(title), fontsize=title_size, parse_math=False, wrap=True)
    if not images:
        say(axes[0, 0], "no images")
    return figure


def _is_map(image, cmap, norm):
    """Whether a two-dimensional image is a map of values rather than a grey photo."""
    in_bytes = image.dtype.kind in "bu" or (image.dtype.kind == "i" and image.min() >= 0 and image.max() <= 255)
    return cmap is not None or norm is not None or not in_bytes


def display_top_masks(image, mask, class_ids, class_names, limit=4, save=None, show=None):
    """Shows an image beside the masks of the classes that cover most of it, a colour per instance.

    Args:
        image: [H, W] or [H, W, channels], as `draw_instances` takes.
        mask: [H, W, N] bool or number.
        class_ids: [N] int; negative: a crowd of that class.
        class_names: list of str by class id.
        limit: int, most classes to show.
        save, show: see `display_images`.

    Returns:
        matplotlib Figure.

    Raises:
        ValueError: masks and class ids differ in number, masks and image in size; a class id has no name.
    """
    picture, class_ids = to_rgb(image), np.asarray(class_ids).reshape(-1).astype(int)
    mask = np.zeros((*picture.shape[:2], 0), bool) if len(class_ids) == np.size(mask) == 0 else np.asarray(mask)
    mask = check_masks(mask, picture.shape[:2], "mask") != 0
    check_counts(mask=mask.shape[2], class_ids=len(class_ids))
    areas = mask.sum(axis=(0, 1))
    covered = {class_id: areas[class_ids == class_id].sum() for class_id in np.unique(class_ids).tolist()}
    images, height, width = [picture], *picture.shape[:2]
    titles = [f"{height} x {width} pixels" + ("" if len(class_ids) else "\nno instances")]
    for class_id in sorted(covered, key=covered.get, reverse=True)[:limit]:
        rows = np.flatnonzero(class_ids == class_id)
        images.append(_colored_masks(mask[..., rows]))
        crowd = " (crowd)" if class_id < 0 else ""
        titles.append(class_name(class_id, class_names) + crowd + (f", {len(rows)} times" if len(rows) > 1 else ""))
    figure = _grid(images, titles, limit + 1)
    finish(figure, True, save, show)
    return figure


def _colored_masks(masks):
    """[H, W, 3] uint8 of masks on black, small ones on large ones."""
    picture = np.zeros((*masks.shape[:2], 3), np.uint8)
    colors = np.around(np.array(instance_colors(masks.shape[2])) * 255)
    for index in np.argsort(-masks.sum(axis=(0, 1)), kind="stable"):
        picture[masks[..., index]] = colors[index]
    return picture


# ------------------------------------------------------------------ instances
def display_instances(image, boxes, masks, class_ids, class_names, scores=None, title="", figsize=(16, 16), ax=None,
                      show_mask=True, show_bbox=True, colors=None, captions=None, save=None, show=None):
    """Shows the instances of an image: masks with outlines, boxes, names and scores.

    Of a mask, what its box covers is drawn. Rows of zeros in the boxes are padding and left out; where nothing is left
    the picture says so. Text keeps a size that can be read, whatever the size of the image.

    Args:
        image: [H, W] or [H, W, channels], as `draw_instances` takes.
        boxes: [N, (y1, x1, y2, x2)] number, pixels.
        masks: [H, W, N] bool or number; None for boxes alone.
        class_ids: [N] int; negative: a crowd of that class.
        class_names: list of str by class id; None writes the numbers.
        scores: [N] float.
        title: str.
        figsize: (width, height) in inches within which the figure made here lies; it takes the image's proportions.
        ax: matplotlib Axes to draw on; None makes a figure, and shows it unless `save` is given.
        show_mask: bool, whether masks and their outlines are drawn.
        show_bbox: bool, whether boxes are drawn.
        colors: None, one per instance; "class", one per class name; or N colours, (red, green, blue) 0..1 or names.
        captions: list of N str to write instead of name and score.
        save: path to write the figure to, as PNG, PDF, SVG ...
        show: bool, whether to call `plt.show()`; None: if the figure is made here and not saved.

    Returns:
        matplotlib Axes.

    Raises:
        ValueError: boxes, masks, class ids, scores, captions and colours differ in number, masks and image in size; a
            class id has no name; a box is not finite; the image cannot be shown.
    """
    canvas = to_rgb(image)
    size = canvas.shape[:2]
    instances = make_instances(size, boxes, masks, class_ids, class_names, scores, captions)
    colors = choose_colors(colors, instances.names)
    boxes = instances.whole_boxes(size)
    masks = instances.masks if show_mask else None
    ax, own = make_image_axes(ax, size, figsize, title)
    _blend(canvas, boxes, masks, colors)
    show_image(ax, own, canvas, title)
    _add_instances(ax, boxes, masks, colors, show_bbox)
    drawn = sorted(large_first(boxes))
    add_labels(ax, boxes[drawn], [instances.captions[index] for index in drawn], colors[drawn], size)
    if not drawn:
        say(ax, "no instances")
    finish(ax.figure, own, save, show)
    return ax


def _blend(canvas, boxes, masks, colors, alpha=MASK_ALPHA):
    for index in large_first(boxes) if masks is not None else ():
        blend_mask(canvas, boxes[index], masks[..., index], colors[index] * 255, alpha=alpha)


def _add_instances(ax, boxes, masks, colors, show_box=True, styles="solid"):
    """Draws boxes and the outlines of masks; finer lines for small objects."""
    drawn = large_first(boxes)
    extents = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) * points_per_pixel(ax)
    widths = np.clip(extents / 60, 0.75, 2)
    if masks is not None:
        outlines = [(line, index) for index in drawn for line in mask_outlines(masks[..., index], boxes[index])]
        of = [index for _, index in outlines]
        add_lines(ax, [line for line, _ in outlines], colors[of], widths[of])
    if show_box:
        add_boxes(ax, boxes[drawn], colors[drawn], widths[drawn], styles)


def mask_outlines(mask, box):
    """Finds the outlines of a mask within its box.

    Args:
        mask: [H, W] bool or number; everything but 0 is inside.
        box: (y1, x1, y2, x2) int, pixels, within the mask.

    Returns:
        list of [points, (x, y)] float, closed lines; the pixel (y, x) covers y..y + 1 and x..x + 1.
    """
    y1, x1, y2, x2 = box
    inside = np.pad(mask[y1:y2, x1:x2] != 0, 1).astype(np.float32)
    return [line[:, ::-1] + (x1 - 0.5, y1 - 0.5) for line in find_contours(inside, 0.5)]


# ------------------------------------------------------------------ predictions and truth
def display_differences(image, gt_box, gt_class_id, gt_mask, pred_box, pred_class_id, pred_score, pred_mask,
                        class_names, title="", ax=None, show_mask=True, show_box=True, iou_threshold=0.5,
                        score_threshold=0.5, figsize=(16, 16), save=None, show=None):
    """Shows predictions over the ground truth, with score / overlap, and the class where it is wrong.

    A prediction's overlap is that with the object it found (see `compute_matches`), or the largest with any; one that
    found nothing is marked "wrong", one below `score_threshold`, which is not asked, "low".

    Args:
        image: [H, W] or [H, W, channels], as `draw_instances` takes.
        gt_box, pred_box: [N, (y1, x1, y2, x2)] and [M, ...] number, pixels; rows of zeros are padding.
        gt_class_id, pred_class_id: [N] and [M] int.
        gt_mask, pred_mask: [H, W, N] and [H, W, M] bool or number; overlaps are those of boxes if either is None.
        pred_score: [M] float.
        class_names: list of str by class id; None writes the numbers.
        title: str; by default what the figure shows.
        show_mask, show_box: bool, whether masks and boxes are drawn.
        iou_threshold: float, smallest overlap of a match.
        score_threshold: float, predictions of a lower score match nothing.
        ax, figsize, save, show: see `display_instances`.

    Returns:
        matplotlib Axes.

    Raises:
        ValueError: see `display_instances`.
    """
    canvas = to_rgb(image)
    size = canvas.shape[:2]
    truth = make_instances(size, gt_box, gt_mask, gt_class_id, class_names, box_name="gt_box")
    found = make_instances(size, pred_box, pred_mask, pred_class_id, class_names, pred_score, box_name="pred_box")
    captions = _judge(truth, found, size, np.asarray(gt_class_id).reshape(-1), np.asarray(pred_class_id).reshape(-1),
                      np.asarray(pred_score, float).reshape(-1), iou_threshold, score_threshold)  # fmt: skip
    title = title or "Ground truth and predictions; captions: score / overlap"
    ax, own = make_image_axes(ax, size, figsize, title)
    sides = [(truth, TRUTH, (0, (4, 2))), (found, PREDICTION, "solid")]
    painted = [(side.whole_boxes(size), side.masks if show_mask else None, np.tile(color, (len(side), 1)), style)
               for side, color, style in sides]  # fmt: skip
    for boxes, masks, colors, _ in painted:
        _blend(canvas, boxes, masks, colors, alpha=MASK_ALPHA / 2)  # two lie on one another
    show_image(ax, own, canvas, title)
    for boxes, masks, colors, style in painted:
        _add_instances(ax, boxes, masks, colors, show_box, style)
    boxes, _, colors, _ = painted[1]
    drawn = sorted(large_first(boxes))
    add_labels(ax, boxes[drawn], [captions[index] for index in drawn], colors[drawn], size)
    if not len(large_first(painted[0][0])) + len(drawn):
        say(ax, "no instances")
    _add_legend(ax)
    finish(ax.figure, own, save, show)
    return ax


def _judge(truth, found, size, gt_class_ids, pred_class_ids, scores, iou_threshold, score_threshold):
    """The caption of each prediction: score / overlap, the class if the best object is of another, "wrong", "low"."""
    gt_boxes, boxes = truth.whole_boxes(size), found.whole_boxes(size)
    objects, rows = (np.flatnonzero(side.any(axis=1)) for side in (truth.boxes, found.boxes))
    rows = rows[by_falling_score(scores[rows])]
    overlaps = _overlaps(boxes[rows], gt_boxes[objects], found.masks, truth.masks, rows, objects)
    _, matches = match_overlaps(overlaps, gt_class_ids[objects], pred_class_ids[rows], scores[rows], iou_threshold,
                                score_threshold)  # fmt: skip
    captions = [""] * len(found)
    for place, (row, match) in enumerate(zip(rows, matches.astype(int))):
        best = match if match >= 0 else overlaps[place].argmax() if objects.size else None
        caption = f"{scores[row]:.2f} / {overlaps[place, best] if best is not None else 0:.2f}"
        is_other = best is not None and gt_class_ids[objects[best]] != pred_class_ids[row]
        caption = f"{found.names[row]} {caption}" if is_other and overlaps[place, best] > 0 else caption
        captions[row] = caption if match >= 0 else f"{caption} {'low' if scores[row] < score_threshold else 'wrong'}"
    return captions


def _overlaps(boxes, gt_boxes, masks, gt_masks, rows, objects):
    """[M, N] intersection over union; of masks only where boxes meet, and no more of them than their boxes cover."""
    overlaps = np.asarray(compute_overlaps(boxes, gt_boxes), float).reshape(len(rows), len(objects))
    if masks is None or gt_masks is None:
        return overlaps
    parts = [masks[y1:y2, x1:x2, row] != 0 for row, (y1, x1, y2, x2) in zip(rows, boxes)]
    gt_parts = [gt_masks[y1:y2, x1:x2, row] != 0 for row, (y1, x1, y2, x2) in zip(objects, gt_boxes)]
    areas, gt_areas = [part.sum() for part in parts], [part.sum() for part in gt_parts]
    for i, j in zip(*np.nonzero(overlaps)):
        corner, end = np.maximum(boxes[i, :2], gt_boxes[j, :2]), np.minimum(boxes[i, 2:], gt_boxes[j, 2:])
        shared = (_part(parts[i], boxes[i], corner, end) & _part(gt_parts[j], gt_boxes[j], corner, end)).sum()
        overlaps[i, j] = shared / max(areas[i] + gt_areas[j] - shared, 1)
    return overlaps


def _part(part, box, corner, end):
    (y1, x1), (y2, x2) = corner - box[:2], end - box[:2]
    return part[y1:y2, x1:x2]


def _add_legend(ax):
    from matplotlib.patches import Patch

    sides = [Patch(facecolor=(*color, 0.4), edgecolor=color, linestyle=style, label=label)
             for color, style, label in ((TRUTH, "--", "ground truth"), (PREDICTION, "-", "prediction"))]  # fmt: skip
    ax.legend(handles=sides, loc="lower right", fontsize=9, framealpha=0.9)
