"""Utilities, under the names that they always had: geometry, data sets, and a few helpers.

The work is done in `mrcnn.geometry` and `mrcnn.data`; neither those nor this module import Keras.
"""

import os

from mrcnn.data.dataset import Dataset
from mrcnn.geometry import masks as _masks
from mrcnn.geometry.anchors import generate_anchors, generate_pyramid_anchors
from mrcnn.geometry.boxes import (
    MAX_LOG_RATIO,
    apply_box_deltas,
    box_refinement,
    compute_iou,
    compute_overlaps,
    denorm_boxes,
    non_max_suppression,
    norm_boxes,
    trim_zeros,
)
from mrcnn.geometry.images import resize, resize_image
from mrcnn.geometry.masks import (
    compute_overlaps_masks,
    expand_mask,
    extract_bboxes,
    minimize_mask,
    resize_mask,
    unmold_mask,
)
from mrcnn.geometry.metrics import compute_ap, compute_ap_range, compute_matches, compute_recall

__all__ = [
    "COCO_MODEL_URL",
    "MAX_LOG_RATIO",
    "Dataset",
    "apply_box_deltas",
    "batch_slice",
    "box_refinement",
    "box_refinement_graph",
    "compute_ap",
    "compute_ap_range",
    "compute_iou",
    "compute_matches",
    "compute_overlaps",
    "compute_overlaps_masks",
    "compute_recall",
    "denorm_boxes",
    "download_trained_weights",
    "expand_mask",
    "extract_bboxes",
    "generate_anchors",
    "generate_pyramid_anchors",
    "minimize_mask",
    "mold_mask",
    "non_max_suppression",
    "norm_boxes",
    "resize",
    "resize_image",
    "resize_mask",
    "trim_zeros",
    "unmold_mask",
]

COCO_MODEL_URL = "https://github.com/matterport/Mask_RCNN/releases/download/v2.0/mask_rcnn_coco.h5"


def mold_mask(mask, config):
    """Brings masks into the form that the network is trained with.

    Args:
        mask: [H, W, N] bool or number; everything but 0 is inside.
        config: Config, of which `USE_MINI_MASK` and `MINI_MASK_SHAPE` count.

    Returns:
        [height, width, N] bool: mini masks, or masks as large as the image without `USE_MINI_MASK`.

    Raises:
        ValueError: a mask has no pixels and mini masks are wanted.
    """
    return _masks.mold_mask(mask, config.MINI_MASK_SHAPE if config.USE_MINI_MASK else None)


def box_refinement_graph(box, gt_box):
    """Computes the deltas that turn each box into its ground truth box, on tensors.

    Args:
        box: [N, (y1, x1, y2, x2)] float tensor, pixels or normalized.
        gt_box: [N, (y1, x1, y2, x2)] float tensor, the same coordinates.

    Returns:
        [N, (dy, dx, log(dh), log(dw))] float32 tensor; not finite for boxes without height or width.
    """
    from mrcnn.network.tensors import box_refinement as refinement_of_tensors

    return refinement_of_tensors(box, gt_box)


def batch_slice(inputs, graph_fn, batch_size, names=None):
    """Applies a function to each image of a batch, for functions that take one image only.

    Args:
        inputs: tensor, or list of tensors, [batch, ...].
        graph_fn: takes one slice [...] of each input; returns a tensor or a list of tensors.
        batch_size: int, number of slices.
        names: accepted as ever; tensors of Keras 3 cannot be renamed.

    Returns:
        tensor [batch_size, ...], or list of such tensors if `graph_fn` returns more than one.

    Raises:
        ValueError: `batch_size` is less than 1.
    """
    from keras import ops

    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; received {batch_size!r}")
    inputs = inputs if isinstance(inputs, list | tuple) else [inputs]
    slices = [graph_fn(*[x[i] for x in inputs]) for i in range(batch_size)]
    slices = [s if isinstance(s, list | tuple) else [s] for s in slices]
    outputs = [ops.stack(parts, axis=0) for parts in zip(*slices, strict=True)]
    return outputs if len(outputs) > 1 else outputs[0]


def download_trained_weights(coco_model_path, verbose=1, url=None):
    """Downloads the weights that the original was trained to on COCO (about 245 MB).

    An interrupted download is resumed; the file gets its name only when it is whole.

    Args:
        coco_model_path: str, where the file goes.
        verbose: 0 shows no progress.
        url: str, another address; by default the environment variable `MRCNN_COCO_URL`, else `COCO_MODEL_URL`.

    Raises:
        ConnectionError: the server cannot be reached or broke off.
        ValueError: what arrived is not a whole weights file.
        OSError: the file cannot be written.
    """
    from mrcnn.engine.downloads import download
    from mrcnn.engine.h5_layout import is_whole

    url = url or os.environ.get("MRCNN_COCO_URL") or COCO_MODEL_URL
    if verbose:
        print(f"Downloading {url} to {coco_model_path}")
    download(url, coco_model_path, check=is_whole, verbose=verbose)
