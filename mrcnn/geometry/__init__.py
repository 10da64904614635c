"""Boxes, masks, images, anchors and metrics in plain numpy."""
