"""Makes the pictures of the README: docs/figures/.

    python docs/pictures.py

They show the network that ships with the Shapes sample, on images that it was not trained on, and take a minute at most
on one CPU core. The curves of the losses are those of its own training (samples/shapes/README.md).
"""

import contextlib
import io
import os
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "figures"

if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "agg")
    sys.path[:0] = [str(ROOT), str(ROOT / "notebooks")]  # a checkout runs without being installed

import matplotlib.pyplot as plt  # noqa: E402
import sources  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.patches import FancyArrowPatch  # noqa: E402

from mrcnn import utils, visualize  # noqa: E402
from mrcnn.data.files import atomic  # noqa: E402
from mrcnn.drawing.colors import CURVES  # noqa: E402

LOSSES = sources.WEIGHTS["shapes"].with_suffix(".csv")
SEEN_FIRST = (23, 32, 41, 48)  # images of the validation set whose shapes hide each other
LOOKED_INTO = 32  # the one whose way through the network is shown
THRESHOLD = 0.7  # score of a detection at least, as in SmallShapesConfig
BOXES = 20  # of those that come by the dozen
STEP = 4.4  # inches, the width of a picture that stands beside another one
GAP = 0.08  # inches between panels
HEAD = 0.2  # inches above them, for a title
FINE = {"font.size": 8, "axes.titlesize": 8, "axes.labelsize": 7, "xtick.labelsize": 6, "ytick.labelsize": 6,
        "legend.fontsize": 7}  # fmt: skip


# ------------------------------------------------------------------ what is shown
def look_inside(model, dataset, image_id):
    """Every step of one detection, by name; boxes in pixels.

    Returns:
        dict of `image` [H, W, 3] uint8; `truth` (boxes, class ids, masks); `anchors`, `refined` and `proposals`
        [N, (y1, x1, y2, x2)], the best first; `kept` [N] bool, the refined anchors that suppression keeps; `probs`
        [proposals, classes] and `deltas` of the second stage; `detections` [N, (y1, x1, y2, x2, class id, score)];
        `raw` [N, height, width], a mask per detection as it leaves the network; `features` [H, W, channels] by stage.
    """
    image, meta, class_ids, boxes, masks = sources.load_objects(dataset, model.config, image_id)
    stages = sources.last_layers(model)
    with contextlib.redirect_stdout(io.StringIO()):  # it lists what it computes
        found = model.run_graph(
            sources.modellib.mold_image(image, model.config)[None],
            [("anchors", "ROI/pre_nms_anchors"), ("refined", "ROI/refined_anchors_clipped"), ("proposals", "ROI"),
             ("kept", "ROI/rpn_non_max_suppression"), ("probs", "mrcnn_class"), ("deltas", "mrcnn_bbox"),
             ("detections", "mrcnn_detection"), ("raw", "mrcnn_mask"), *stages.items()],
            image_metas=meta[None],
        )  # fmt: skip
    found = {name: value if name == "kept" else value[0] for name, value in found.items()}
    pixels = {name: utils.denorm_boxes(found[name], image.shape[:2]) for name in ("anchors", "refined", "proposals")}
    detections = found["detections"][found["detections"][:, 5] >= THRESHOLD]
    detections[:, :4] = utils.denorm_boxes(detections[:, :4], image.shape[:2])
    raw = found["raw"][np.arange(len(detections)), :, :, detections[:, 4].astype(int)]
    kept = np.isin(np.arange(len(found["anchors"])), found["kept"])
    return found | pixels | {"image": image, "truth": (boxes, class_ids, masks), "detections": detections, "raw": raw,
                             "kept": kept, "features": {stage: found[stage] for stage in stages}}  # fmt: skip


def pale(image):
    """An image on which many lines can be seen."""
    return (0.4 * image + 0.6 * 255).astype(np.uint8)


def captions_of(names, class_ids, scores):
    return [f"{names[int(class_id)]} {score:.2f}" for class_id, score in zip(class_ids, scores)]


def panels(count, rows=1, width=STEP, left=0.02, gap=GAP, bottom=0.02):
    """A figure, and its square axes row by row; their size is known before labels are placed on them.

    `gap` (between rows), `left` and `bottom` are inches.
    """
    side = (width - left - 0.02 - (count - 1) * GAP) / count
    height = bottom + rows * side + (rows - 1) * gap + HEAD
    figure, axes = plt.subplots(rows, count, figsize=(width, height), squeeze=False)
    figure.subplots_adjust(left / width, bottom / height, 1 - 0.02 / width, 1 - HEAD / height, GAP / side, gap / side)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    return figure, axes.ravel()


# ------------------------------------------------------------------ the picture at the top
def draw_overview(model, dataset):
    """Images in, detections out."""
    images = [dataset.load_image(image_id) for image_id in SEEN_FIRST]
    figure, axes = panels(len(images), rows=2, width=9.6, left=0.35, gap=0.4)
    for above, below, image, found in zip(axes, axes[len(images) :], images, model.detect(images)):
        above.imshow(image, interpolation="nearest")
        above.axis("off")
        visualize.display_instances(image, found["rois"], found["masks"], found["class_ids"], dataset.class_names,
                                    found["scores"], ax=below)  # fmt: skip
        above.add_artist(FancyArrowPatch((0.5, -0.02), (0.5, -0.16), transform=above.transAxes, arrowstyle="-|>",
                                         clip_on=False, mutation_scale=14, color="0.35", linewidth=1.5))  # fmt: skip
    for ax, text in ((axes[0], "images"), (axes[len(images)], "class, score, box, mask")):
        ax.text(-0.05, 0.5, text, transform=ax.transAxes, rotation=90, ha="right", va="center", fontsize=11)
    return figure


# ------------------------------------------------------------------ step by step
def draw_anchors(seen, config):
    """The boxes that the search starts from."""
    _, centers = sources.anchor_levels(config, config.IMAGE_SHAPE)
    labels = [f"P{number + 2}: {scale} pixels" for number, scale in enumerate(config.RPN_ANCHOR_SCALES)]
    figure, (ax, beside) = panels(2)
    beside.axis("off")
    visualize.draw_anchors(pale(seen["image"]), centers, labels, ax=ax, title="Anchors of one cell per level")
    ax.get_legend().remove()
    beside.legend(handles=[Line2D([], [], color=color, linewidth=2.5) for color in CURVES[: len(labels)]],
                  labels=labels, title="level and scale", fontsize=8, loc="center")  # fmt: skip
    return figure


def draw_refinement(seen):
    """The best anchors, and where the RPN moves them."""
    figure, (left, right) = panels(2)
    solid = np.full(BOXES, 2)
    titles = f"The {BOXES} best anchors", "Refined, and clipped to the image"
    for ax, boxes, title in zip((left, right), (seen["anchors"], seen["refined"]), titles):
        visualize.draw_boxes(pale(seen["image"]), boxes[:BOXES], visibilities=solid, ax=ax, title=title)
    right.set(xlim=left.get_xlim(), ylim=left.get_ylim())
    return figure


def draw_proposals(seen):
    """What non-maximum suppression drops, and what is left."""
    figure, (left, right) = panels(2)
    refined, kept = seen["refined"][:BOXES], seen["kept"][:BOXES]
    colors = np.array(visualize.instance_colors(BOXES))
    visualize.draw_boxes(pale(seen["image"]), refined, visibilities=2 * kept, colors=colors, ax=left,
                         title=f"Suppression drops {BOXES - kept.sum()} of {BOXES} (dotted)")  # fmt: skip
    visualize.draw_boxes(pale(seen["image"]), refined[kept], visibilities=np.full(kept.sum(), 2), ax=right,
                         colors=colors[kept], title=f"{kept.sum()} proposals are left")  # fmt: skip
    return figure


def draw_classes(seen, config, names):
    """Proposals that the second stage takes for objects, and what becomes of them."""
    rows = np.flatnonzero(seen["proposals"].any(axis=1))
    proposals, class_ids, scores = seen["proposals"][rows], seen["probs"][rows].argmax(1), seen["probs"][rows].max(1)
    deltas = seen["deltas"][rows, class_ids] * config.BBOX_STD_DEV
    refined = utils.apply_box_deltas(proposals.astype(np.float32), deltas.astype(np.float32))
    positive = (class_ids > 0) & (scores >= THRESHOLD)
    chosen = []
    for class_id in np.unique(class_ids[positive]):
        same = np.flatnonzero(positive & (class_ids == class_id))
        chosen.extend(same[utils.non_max_suppression(refined[same], scores[same], config.DETECTION_NMS_THRESHOLD)])
    refined = np.clip(refined, 0, np.tile(seen["image"].shape[:2], 2))
    figure, (left, right) = panels(2)
    visualize.draw_boxes(pale(seen["image"]), proposals, visibilities=2 * positive, ax=left,
                         title=f"{positive.sum()} of {len(rows)} proposals hold an object")  # fmt: skip
    visualize.draw_boxes(pale(seen["image"]), proposals[chosen], refined[chosen], ax=right, title="Refined again",
                         captions=captions_of(names, class_ids[chosen], scores[chosen]))  # fmt: skip
    return figure


def draw_masks(seen, names):
    """Masks as they leave the network, and in the image."""
    boxes, class_ids, scores = np.split(seen["detections"], (4, 5), axis=1)
    captions = captions_of(names, class_ids[:, 0], scores[:, 0])
    figure, axes = panels(len(captions), rows=2, left=0.25)
    for above, below, mask, box, caption in zip(axes, axes[len(captions) :], seen["raw"], boxes, captions):
        above.imshow(mask, cmap="Blues", vmin=0, vmax=1)
        above.set_title(caption)
        below.imshow(utils.unmold_mask(mask, box.astype(int), seen["image"].shape), cmap="Blues", vmin=0, vmax=1)
    height, width = seen["raw"].shape[1:]
    axes[0].set_ylabel(f"{height} x {width}")
    axes[len(captions)].set_ylabel("in the image")
    return figure


def draw_result(model, dataset, image_id):
    """Detections, and beside them how well they fit the truth."""
    image, _, class_ids, boxes, masks = sources.load_objects(dataset, model.config, image_id)
    found = model.detect([image])[0]
    figure, (left, right) = panels(2, bottom=0.3)
    visualize.display_instances(image, found["rois"], found["masks"], found["class_ids"], dataset.class_names,
                                found["scores"], ax=left, title="Detections")  # fmt: skip
    visualize.display_differences(image, boxes, class_ids, masks, found["rois"], found["class_ids"], found["scores"],
                                  found["masks"], dataset.class_names, ax=right,
                                  title="Over the truth: score / overlap")  # fmt: skip
    legend = right.get_legend()
    figure.legend(handles=legend.legend_handles, loc="lower right", ncols=2, fontsize=7)
    legend.remove()
    return figure


def draw_activations(seen):
    """The channels of each stage of the backbone that vary most."""
    stages, shown = list(seen["features"])[:3], 4
    figure, axes = panels(shown, rows=len(stages), left=0.4)
    for row, stage in zip(axes.reshape(len(stages), shown), stages):
        features = seen["features"][stage]
        for ax, channel in zip(row, np.argsort(-features.std(axis=(0, 1)), kind="stable")):
            ax.imshow(features[..., channel], cmap="viridis")
        row[0].set_ylabel(f"{stage}\n{features.shape[0]} x {features.shape[1]}")
    axes[0].set_title("Channels that vary most", loc="left")
    return figure


def draw_weights(model):
    """Histograms of kernels, from the first layer to the last."""
    layers = [inner for layer in model.get_trainable_layers() for inner in getattr(layer, "layers", [layer])]
    names = ("conv1", "res3a_branch2a", "fpn_p3", "rpn_conv_shared", "mrcnn_class_logits", "mrcnn_mask")
    figure, axes = plt.subplots(2, 3, figsize=(STEP, 3.2), layout="constrained")
    for ax, name in zip(axes.flat, names):
        kernel = next(layer for layer in layers if layer.name == name).get_weights()[0]
        ax.hist(kernel.ravel(), bins=40, color="#0072b2")
        ax.set(title=f"{name}\n{kernel.size:,} values, std {kernel.std():.2g}", yticks=[])
        ax.title.set_fontsize(6.5)
        ax.locator_params(axis="x", nbins=4)
    figure.supxlabel("value of the weight", fontsize=7)
    return figure


def draw_losses():
    """The losses of the training that the weights come from."""
    figure = visualize.plot_losses(LOSSES, title="Thirty epochs of 100 steps from random values", show=False)
    figure.set_size_inches(9.6, 4.8)
    return figure


# ------------------------------------------------------------------ files
def save(figure, path, dpi):
    """Saves a figure as PNG; under its name there is only ever a whole file."""
    try:
        with atomic(path) as unfinished:
            # Without the version of matplotlib, which would make another file of the same picture.
            figure.savefig(unfinished, format="png", dpi=dpi, metadata={"Software": None})
    finally:
        plt.close(figure)


def main(folder=FOLDER):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dataset = sources.open_dataset("shapes", "val")
    config = sources.make_config("shapes", "inference")
    config.DETECTION_MIN_CONFIDENCE = THRESHOLD
    model = sources.open_model("shapes", config=config)
    seen = look_inside(model, dataset, LOOKED_INTO)
    names = dataset.class_names
    wide = {"overview": lambda: draw_overview(model, dataset), "losses": draw_losses}
    steps = {
        "anchors": lambda: draw_anchors(seen, config), "refinement": lambda: draw_refinement(seen),
        "proposals": lambda: draw_proposals(seen), "classes": lambda: draw_classes(seen, config, names),
        "masks": lambda: draw_masks(seen, names), "result": lambda: draw_result(model, dataset, LOOKED_INTO),
        "activations": lambda: draw_activations(seen), "weights": lambda: draw_weights(model),
    }  # fmt: skip
    for name, draw in (wide | steps).items():
        with plt.rc_context({} if name in wide else FINE):
            save(draw(), folder / f"{name}.png", dpi=100 if name in wide else 160)
        print(f"{name}.png: {(folder / f'{name}.png').stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
