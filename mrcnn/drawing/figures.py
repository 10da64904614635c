"""Figures of images: instances, differences, regions, masks."""

import numpy as np

from mrcnn.drawing.axes import contour, finish, new_axes, new_grid, outline, show_image, write_labels
from mrcnn.drawing.canvas import apply_mask, check_instances, to_canvas, whole_pixels
from mrcnn.drawing.colors import colors_of, numbered_color
from mrcnn.geometry.masks import unmold_mask
from mrcnn.geometry.metrics import compute_matches

MASK_ALPHA = 0.45
GREY = (0.6, 0.6, 0.6)
FOUND, TRUE = (0.84, 0.15, 0.16), (0.0, 0.62, 0.45)  # told apart by the colour-blind, too
STYLES = ((GREY, ":", 1.3), (None, ":", 1.5), (None, "-", 2.0))  # (colour, line, width) by visibility


def display_images(images, titles=None, cols=4, cmap=None, norm=None, interpolation=None, save=None):
    """Shows images side by side.

    Args:
        images: list of [H, W] or [H, W, channels] arrays; those of one channel take `cmap` and `norm`.
        titles: list of str, one per image, or None.
        cols: int, images per row.
        cmap, norm, interpolation: as matplotlib's `imshow` takes them.
        save: path of a file to write instead of showing the figure, or None.

    Returns:
        matplotlib Figure.

    Raises:
        ValueError: no images, titles of another number, an image that cannot be shown.
    """
    images, titles = list(images), [""] * len(images) if titles is None else [str(title) for title in titles]
    if not images or len(titles) != len(images) or cols < 1:
        raise ValueError(f"one title per image is needed, and cols of 1 or more; received {len(images)} images, "
                         f"{len(titles)} titles, cols = {cols}")  # fmt: skip
    cols = min(cols, len(images))
    rows = -(-len(images) // cols)
    figure, axes = new_grid(rows, cols, (3.5 * cols, 3.5 * rows))
    for ax, image, title in zip(axes, images, titles):
        image = np.squeeze(np.asarray(image))
        ax.imshow(image if image.ndim == 2 else to_canvas(image), cmap=cmap, norm=norm, interpolation=interpolation)
        ax.set_title(title, size=9)
    for ax in axes:
        ax.axis("off")
    finish(figure, save)
    return figure


def display_instances(image, boxes, masks, class_ids, class_names, scores=None, title="", figsize=(16, 16), ax=None,
                      show_mask=True, show_bbox=True, colors=None, captions=None, save=None):
    """Shows the instances of an image: translucent masks with their rims, boxes, names and scores.

    Of a mask, what its box covers is drawn. Where there is nothing to draw, the figure says so.

    Args:
        image: [H, W] or [H, W, channels], of any common type, as `draw_instances` takes it.
        boxes: [N, (y1, x1, y2, x2)], pixels; rows of zeros are padding.
        masks: [H, W, N] bool, or None.
        class_ids: [N] int; negative: a crowd of that class.
        class_names: list of str by class id; None writes numbers.
        scores: [N] float, or None.
        title: str.
        figsize: (width, height) of a figure that is made here, inches.
        ax: axes to draw on; None makes a figure, and shows it.
        show_mask, show_bbox: bool, whether masks and boxes are drawn.
        colors: None, a colour per instance; "class", one per class name; or N (red, green, blue), 0..1.
        captions: list of N str in place of names and scores, or None.
        save: path of a file to write instead of showing the figure, or None.

    Returns:
        matplotlib Axes.

    Raises:
        ValueError: boxes, masks, class ids, scores, captions and colours differ in number, masks and image in size; a
            class id has no name; a box is not finite.
    """
    canvas = to_canvas(image)
    size = canvas.shape[:2]
    result = {"rois": boxes, "class_ids": class_ids, "scores": scores, "masks": masks}
    instances = check_instances(result, size, class_names)
    if captions is not None and len(captions) != len(instances["boxes"]):
        raise ValueError(f"captions must be one per instance; received {len(captions)} for {len(instances['boxes'])}")
    captions = [caption or "" for caption in captions] if captions is not None else instances["captions"]
    colors = colors_of(instances["names"], colors)
    whole = whole_pixels(instances["boxes"], size)
    areas = (whole[:, 2:] - whole[:, :2]).prod(axis=1)
    order = [index for index in np.argsort(-areas, kind="stable") if areas[index]]
    ax, own = new_axes(ax, figsize)
    if show_mask and instances["masks"] is not None:
        for index in order:
            y1, x1, y2, x2 = whole[index]
            part = instances["masks"][y1:y2, x1:x2, index] != 0
            apply_mask(canvas[y1:y2, x1:x2], part, colors[index], MASK_ALPHA)
            contour(ax, part, (y1, x1), colors[index])
    show_image(ax, canvas, title)
    for index in order if show_bbox else ():
        outline(ax, instances["boxes"][index], colors[index])
    write_labels(ax, [(whole[index], captions[index], colors[index]) for index in sorted(order)], size)
    if not order:
        ax.text(size[1] / 2, size[0] / 2, "no instances", ha="center", va="center", size=14,
                bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none"})  # fmt: skip
    finish(ax.figure, save, own)
    return ax


def display_differences(image, gt_box, gt_class_id, gt_mask, pred_box, pred_class_id, pred_score, pred_mask,
                        class_names, title="", ax=None, show_mask=True, show_box=True, iou_threshold=0.5,
                        score_threshold=0.5, save=None):
    """Shows ground truth and predictions over each other; predictions carry their score and overlap with the truth.

    Args:
        image: as `display_instances` takes it.
        gt_box, pred_box: [N or M, (y1, x1, y2, x2)], pixels.
        gt_class_id, pred_class_id: [N or M] int.
        gt_mask, pred_mask: [H, W, N or M] bool.
        pred_score: [M] float.
        class_names: list of str by class id.
        title: str; by default it counts what was found.
        ax, save: as in `display_instances`.
        show_mask, show_box: bool.
        iou_threshold: float, smallest overlap of masks that counts as found.
        score_threshold: float, predictions of a lower score are not compared.

    Returns:
        matplotlib Axes.

    Raises:
        ValueError: as `display_instances`.
    """
    order = np.argsort(-np.asarray(pred_score), kind="stable")  # compute_matches answers in this order
    gt_match, pred_match, overlaps = compute_matches(
        gt_box, gt_class_id, gt_mask, pred_box, pred_class_id, pred_score, pred_mask, iou_threshold, score_threshold
    )
    pred_box, pred_class_id, pred_score = (np.asarray(a)[order] for a in (pred_box, pred_class_id, pred_score))
    found = [
        f"{score:.2f} / {overlap.max() if len(overlap) else 0:.2f}" for score, overlap in zip(pred_score, overlaps)
    ]
    n, m = len(gt_box), len(found)
    ax, own = new_axes(ax)
    display_instances(
        image, np.concatenate([np.asarray(gt_box).reshape(-1, 4), pred_box.reshape(-1, 4)]),
        np.concatenate([np.asarray(gt_mask), np.asarray(pred_mask)[..., order]], axis=2),
        np.concatenate([gt_class_id, pred_class_id]).astype(int), class_names, ax=ax,
        show_mask=show_mask, show_bbox=show_box, colors=[TRUE] * n + [FOUND] * m, captions=[""] * n + found,
        title=title or f"{int((gt_match > -1).sum())} of {n} objects found, {int((pred_match < 0).sum())} of {m} "
                       "predictions without one",
    )  # fmt: skip
    add_legend(ax, {"ground truth": TRUE, "prediction: score / IoU": FOUND})
    finish(ax.figure, save, own)
    return ax


def add_legend(ax, colors):
    """A legend of names and their colours below the axes."""
    from matplotlib.patches import Patch

    ax.legend(handles=[Patch(color=color, label=name) for name, color in colors.items()], ncol=len(colors),
              loc="upper center", bbox_to_anchor=(0.5, 0), frameon=False, fontsize="large")  # fmt: skip


def draw_boxes(image, boxes=None, refined_boxes=None, masks=None, captions=None, visibilities=None, title="", ax=None,
               save=None):
    """Shows boxes, what they were refined to, and masks.

    Args:
        image: as `display_instances` takes it.
        boxes: [N, (y1, x1, y2, x2)], pixels, drawn with dots where there are refined ones; or None.
        refined_boxes: [N, (y1, x1, y2, x2)], pixels, drawn solid, with a line from the box each comes from; or None.
        masks: [H, W, N] bool, or None.
        captions: list of N str, at the refined boxes where there are any; or None.
        visibilities: [N] of 0 (grey dots), 1 (coloured dots) and 2 (coloured line); None stands for 1.
        title: str.
        ax, save: as in `display_instances`.

    Returns:
        matplotlib Axes.

    Raises:
        ValueError: no boxes at all; what is given differs in number; a mask has not the image's size.
    """
    canvas = to_canvas(image)
    given = {"boxes": boxes, "refined_boxes": refined_boxes, "captions": captions, "visibilities": visibilities}
    counts = {name: len(values) for name, values in given.items() if values is not None}
    if masks is not None:
        counts["masks"] = np.shape(masks)[-1]
    if (boxes is None and refined_boxes is None) or len(set(counts.values())) != 1:
        raise ValueError(f"boxes or refined_boxes are needed, and as many of everything else; received {counts}")
    count = len(boxes if boxes is not None else refined_boxes)
    final = np.asarray(boxes if refined_boxes is None else refined_boxes, float).reshape(-1, 4)
    # This also checks sizes and numbers.
    check_instances({"rois": final, "class_ids": np.zeros(count, int), "masks": masks}, canvas.shape[:2], None)
    ax, own = new_axes(ax, (12, 12))
    labels = []
    for index in range(count):
        seen = 1 if visibilities is None else int(visibilities[index])
        fixed, style, width = STYLES[seen]
        color = fixed or numbered_color(index)
        if boxes is not None and np.any(boxes[index]):
            outline(ax, boxes[index], color, style, width, alpha=0.9 if seen == 0 else 1)
        if refined_boxes is not None and seen > 0:
            outline(ax, refined_boxes[index], color)
            if boxes is not None:
                (y, x), (to_y, to_x) = boxes[index][:2], refined_boxes[index][:2]
                ax.plot([x, to_x], [y, to_y], color=color, linewidth=1)
        if masks is not None:
            _blend(canvas, ax, final[index], np.asarray(masks)[..., index], color)
        labels.append((final[index], captions[index] if captions is not None else "", color))
    show_image(ax, canvas, title)
    write_labels(ax, labels, canvas.shape[:2])
    finish(ax.figure, save, own)
    return ax


def _blend(canvas, ax, box, mask, color):
    """A mask, as far as its box covers it, with its rim."""
    y1, x1, y2, x2 = whole_pixels(np.asarray(box)[None], canvas.shape[:2])[0]
    part = mask[y1:y2, x1:x2] != 0
    if part.any():
        apply_mask(canvas[y1:y2, x1:x2], part, color, MASK_ALPHA)
        contour(ax, part, (y1, x1), color)


def draw_rois(image, rois, refined_rois, mask, class_ids, class_names, limit=10, ax=None, save=None):
    """Shows some regions: positive ones with what they are refined to, their mask and class, negative ones in grey.

    Args:
        image: as `display_instances` takes it.
        rois: [N, (y1, x1, y2, x2)], pixels.
        refined_rois: [N, (y1, x1, y2, x2)], pixels.
        mask: [N, height, width], the masks within the refined regions.
        class_ids: [N] int, 0 where a region is negative.
        class_names: list of str by class id.
        limit: int, regions that are drawn; of more, so many are drawn by lot (numpy's global generator).
        ax, save: as in `display_instances`.

    Returns:
        matplotlib Axes.

    Raises:
        ValueError: the arrays differ in length; a class id has no name.
    """
    rois, refined_rois, class_ids = np.asarray(rois), np.asarray(refined_rois), np.asarray(class_ids)
    counts = {len(rois), len(refined_rois), len(mask), len(class_ids)}
    if len(counts) != 1:
        raise ValueError("rois, refined_rois, mask and class_ids must be as many; received "
                         f"{len(rois)}, {len(refined_rois)}, {len(mask)}, {len(class_ids)}")  # fmt: skip
    chosen = np.arange(len(rois))
    if len(rois) > limit:
        chosen = np.sort(np.random.choice(len(rois), limit, replace=False))
    shape = np.shape(image)
    masks = np.zeros((*shape[:2], len(chosen)), bool)
    for column, index in enumerate(chosen):
        if class_ids[index] > 0:
            masks[..., column] = unmold_mask(mask[index], refined_rois[index], shape)
    names = check_instances({"rois": rois[chosen], "class_ids": class_ids[chosen]}, shape[:2], class_names)["names"]
    positive = class_ids > 0
    print(f"Positive ROIs: {positive.sum()}, negative: {(~positive).sum()}, "
          f"share of positive ones: {positive.mean() if len(positive) else 0:.2f}")  # fmt: skip
    return draw_boxes(
        image, rois[chosen], refined_rois[chosen], masks, [n if p else "" for n, p in zip(names, positive[chosen])],
        positive[chosen].astype(int), f"{len(chosen)} of {len(rois)} ROIs", ax, save,
    )  # fmt: skip


def display_top_masks(image, mask, class_ids, class_names, limit=4, save=None):
    """Shows an image and, for each of the classes that cover most of it, their masks.

    Args:
        image: as `display_instances` takes it.
        mask: [H, W, N] bool.
        class_ids: [N] int.
        class_names: list of str by class id.
        limit: int, number of classes; fewer leave panels empty, so that rows of several images line up.
        save: as in `display_instances`.

    Returns:
        matplotlib Figure.

    Raises:
        ValueError: masks and class ids differ in number, mask and image in size; a class id has no name.
    """
    mask, class_ids = np.asarray(mask), np.asarray(class_ids)
    canvas = to_canvas(image)
    names = check_instances({"rois": np.zeros((len(class_ids), 4)), "class_ids": class_ids, "masks": mask},
                            canvas.shape[:2], class_names)["names"]  # fmt: skip
    panels, areas = {}, mask.sum(axis=(0, 1))
    for class_id in np.unique(class_ids[areas > 0]):
        members = np.flatnonzero(class_ids == class_id)
        # Each instance has a number of its own, so that neighbours can be told apart.
        panels[names[members[0]]] = (mask[..., members] * np.arange(1, len(members) + 1)).max(axis=2)
    top = sorted(panels, key=lambda name: -np.count_nonzero(panels[name]))[:limit]
    figure, axes = new_grid(1, limit + 1, (2.8 * (limit + 1), 3))
    axes[0].imshow(canvas)
    axes[0].set_title(f"H x W = {canvas.shape[0]} x {canvas.shape[1]}", size=9)
    for ax, name in zip(axes[1:], [*top, *[None] * (limit - len(top))]):
        shown = np.zeros(canvas.shape[:2]) if name is None else panels[name] / panels[name].max() * 0.7 + 0.3
        shown = shown if name is None else np.where(panels[name] > 0, shown, 0)
        ax.imshow(shown, cmap="Blues_r", vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(name or "-", size=9)
    for ax in axes:
        ax.axis("off")
    finish(figure, save)
    return figure
