"""Good annotation files of COCO and VIA, drawn, together with the masks that they must give."""

import numpy as np
from faults.strategies import filled
from hypothesis import strategies as st

from mrcnn.data.coco_files import rle_tools

PHOTOS = {"a.png": (27, 20), "b.png": (40, 9)}  # width, height

coordinates = st.integers(-10, 50) | st.floats(-10, 50, allow_nan=False)


def _runs(mask):
    """COCO's uncompressed RLE of [H, W] bool: lengths of runs, column after column, outside first."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    steps = np.flatnonzero(flat[1:] != flat[:-1])
    ends = np.concatenate([[0], steps, [mask.size]])
    runs = np.diff(ends).tolist()
    return runs[:-1] if flat[-2] else runs


@st.composite
def coco_documents(draw):
    """(document, masks): a file of COCO instances, and [H, W] bool of each annotation whose mask is known exactly."""
    sizes = draw(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=3))
    images = [{"id": number, "file_name": f"{number}.png", "width": width, "height": height}
              for number, (width, height) in enumerate(sizes, 1)]
    categories = [{"id": number, "name": name} for number, name in draw(
        st.lists(st.sampled_from([(1, "person"), (3, "car"), (8, "truck,lorry")]), min_size=1, unique=True))]
    annotations, masks = [], {}
    for number in range(1, 1 + draw(st.integers(0, 5))):
        image = draw(st.sampled_from(images))
        segmentation, mask = draw(_segmentations(image["width"], image["height"]))
        made = {"id": number, "image_id": image["id"], "category_id": draw(st.sampled_from(categories))["id"],
                "segmentation": segmentation, "iscrowd": draw(st.sampled_from((0, 0, 1)))}
        if mask is not None:
            masks[number] = mask
            if draw(st.booleans()):
                made |= {"area": int(mask.sum()), "bbox": [0, 0, image["width"], image["height"]]}
        annotations.append(made)
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}, masks


@st.composite
def _segmentations(draw, width, height):
    kind = draw(st.sampled_from(("box", "polygons", "runs", "compressed")))
    if kind == "polygons":
        numbers = st.lists(coordinates, min_size=6, max_size=14).map(lambda found: found[:len(found) // 2 * 2])
        return draw(st.lists(numbers, min_size=1, max_size=3)), None
    mask = np.zeros((height, width), bool)
    if kind == "box":
        (x1, x2), (y1, y2) = (sorted(draw(st.lists(st.integers(0, side), min_size=2, max_size=2, unique=True)))
                              for side in (width, height))
        mask[y1:y2, x1:x2] = True
        return [[x1, y1, x2, y1, x2, y2, x1, y2]], mask
    mask = filled((height, width), "uint8", "noise", draw(st.integers(0, 2**32 - 1))) < draw(
        st.sampled_from((0, 3, 128, 256)))
    if kind == "runs":
        return {"size": [height, width], "counts": _runs(mask)}, mask
    counts = rle_tools().encode(np.asfortranarray(mask, np.uint8))["counts"].decode("ascii")
    return {"size": [height, width], "counts": counts}, mask


@st.composite
def via_documents(draw):
    """(document, masks): a VIA file on the PHOTOS, and [H, W] bool by (photo, region) where the mask is known."""
    document, masks = {}, {}
    for name in draw(st.lists(st.sampled_from(list(PHOTOS)), min_size=1, unique=True)):
        regions = []
        for number in range(draw(st.integers(0, 4))):
            shape, mask = draw(_shapes(*PHOTOS[name]))
            if mask is not None:
                masks[name, number] = mask
            regions.append({"shape_attributes": shape, "region_attributes": draw(_attributes)})
        if draw(st.booleans()):
            regions = {str(number): region for number, region in enumerate(regions)}
        document[f"{name}123"] = {"filename": name, "size": 123, "regions": regions, "file_attributes": {}}
    if draw(st.booleans()):
        document = {"_via_settings": {}, "_via_img_metadata": document, "_via_attributes": {}}
    return document, masks


_attributes = st.sampled_from(({}, {"kind": "kite"}, {"kind": "balloon"}, {"kind": {"kite": True}}, {"kind": 3}))


@st.composite
def _shapes(draw, width, height):
    kind = draw(st.sampled_from(("rect", "circle", "ellipse", "polygon", "polyline")))
    lengths = st.integers(1, 50) | st.floats(0.01, 50)
    x, y, a, b = draw(coordinates), draw(coordinates), draw(lengths), draw(lengths)
    if kind == "rect":
        mask = None
        if all(isinstance(number, int) for number in (x, y, a, b)):
            mask = np.zeros((height, width), bool)
            mask[max(y, 0):max(y + b, 0), max(x, 0):max(x + a, 0)] = True
        return {"name": kind, "x": x, "y": y, "width": a, "height": b}, mask
    if kind == "circle":
        return {"name": kind, "cx": x, "cy": y, "r": a}, None
    if kind == "ellipse":
        return {"name": kind, "cx": x, "cy": y, "rx": a, "ry": b, "theta": draw(st.floats(-7, 7))}, None
    points = draw(st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9))
    return {"name": kind, "all_points_x": [px for px, _ in points], "all_points_y": [py for _, py in points]}, None
