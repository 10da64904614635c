"""Pictures of data, of what a model finds and of how well it does: the public face of `mrcnn/drawing/`.

`draw_instances`, `apply_mask` and `draw_box` work on arrays. The others make matplotlib figures: they draw on `ax`
where it is given, else on a figure of their own, which is shown (`plt.show()`, where there is a window or a notebook)
unless `save=` names a file for it, and return the axes, or the figure where it has several. No backend is chosen here,
and matplotlib is imported when the first figure is made.
"""

from mrcnn.drawing.canvas import apply_mask, draw_box, draw_instances
from mrcnn.drawing.colors import class_colors, instance_colors, random_colors
from mrcnn.drawing.figures import display_differences, display_images, display_instances, display_top_masks
from mrcnn.drawing.plots import (
    plot_confusion_matrix,
    plot_dataset_precision_recall,
    plot_losses,
    plot_overlaps,
    plot_precision_recall,
)
from mrcnn.drawing.regions import draw_anchors, draw_boxes, draw_rois
from mrcnn.drawing.tables import display_table, display_weight_stats

__all__ = [
    "apply_mask", "class_colors", "display_differences", "display_images", "display_instances", "display_table",
    "display_top_masks", "display_weight_stats", "draw_anchors", "draw_box", "draw_boxes", "draw_instances",
    "draw_rois", "instance_colors", "plot_confusion_matrix", "plot_dataset_precision_recall", "plot_losses",
    "plot_overlaps", "plot_precision_recall", "random_colors",
]  # fmt: skip
