"""Pictures of what a model finds, and of how it gets there.

What draws on axes takes `ax=` and returns it; without it a figure is made and, where there is a window or a notebook,
shown. `save=` writes a file instead. Nothing here chooses a backend of matplotlib.
"""

from mrcnn.drawing.canvas import apply_mask, draw_box, draw_instances
from mrcnn.drawing.colors import class_colors, random_colors
from mrcnn.drawing.figures import (
    display_differences,
    display_images,
    display_instances,
    display_top_masks,
    draw_boxes,
    draw_rois,
)
from mrcnn.drawing.plots import (
    display_table,
    display_weight_stats,
    plot_confusion_matrix,
    plot_losses,
    plot_overlaps,
    plot_precision_recall,
    plot_precision_recall_curves,
)

__all__ = [
    "apply_mask", "class_colors", "display_differences", "display_images", "display_instances", "display_table",
    "display_top_masks", "display_weight_stats", "draw_box", "draw_boxes", "draw_instances", "draw_rois",
    "plot_confusion_matrix", "plot_losses", "plot_overlaps", "plot_precision_recall", "plot_precision_recall_curves",
    "random_colors",
]  # fmt: skip
