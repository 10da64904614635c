"""Good annotation files of COCO and VIA, drawn, and what a data set must make of them."""

import json
import math

import numpy as np
from faults import references
from faults.strategies import filled
from hypothesis import assume
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


# ---------------------------------------------------------------- COCO


@st.composite
def coco_documents(draw):
    """(document, truth): a file of COCO instances, and the (mask, sure) of its segmentations by their `coco_key`."""
    sizes = draw(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=3))
    images = [{"id": number, "file_name": f"{number}.png", "width": width, "height": height}
              for number, (width, height) in enumerate(sizes, 1)]
    categories = [{"id": number, "name": name} for number, name in draw(
        st.lists(st.sampled_from([(1, "person"), (3, "car"), (8, "truck,lorry")]), min_size=1, unique=True))]
    annotations, truth = [], {}
    for number in range(1, 1 + draw(st.sampled_from((2, 3, 1, 5, 4, 0)))):
        image = draw(st.sampled_from(images))
        segmentation, mask = draw(_segmentations(image["width"], image["height"]))
        made = {"id": number, "image_id": image["id"], "category_id": draw(st.sampled_from(categories))["id"],
                "segmentation": segmentation, "iscrowd": draw(st.sampled_from((0, 0, 1)))}
        size = image["height"], image["width"]
        truth[coco_key(segmentation, size)] = (
            references.coco_polygons(segmentation, size) if mask is None else (mask, np.ones(size, bool)))
        if mask is not None and draw(st.booleans()):
            made |= {"area": int(mask.sum()), "bbox": [0, 0, image["width"], image["height"]]}
        annotations.append(made)
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}, truth


def coco_key(segmentation, size):
    """Text that stands for a segmentation in an image of the size (height, width)."""
    return json.dumps([segmentation, size])


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


# ---------------------------------------------------------------- VIA

NAMED = ({"kind": "kite"}, {"kind": "balloon"}, {"kind": {"kite": True}}, {"kind": 3})  # the attributes of a region


@st.composite
def via_documents(draw, attributes=None):
    """A VIA file on the PHOTOS; by default some regions may have a class where others have none."""
    attributes = attributes or draw(st.sampled_from((({},), NAMED, NAMED, NAMED, (*NAMED, {}))))
    document = {}
    for name in draw(st.lists(st.sampled_from(list(PHOTOS)), min_size=1, unique=True)):
        regions = [{"shape_attributes": draw(_shapes()), "region_attributes": draw(st.sampled_from(attributes))}
                   for _ in range(draw(st.sampled_from((1, 2, 3, 4, 2, 0))))]
        if draw(st.booleans()):
            regions = {str(number): region for number, region in enumerate(regions)}
        document[f"{name}123"] = {"filename": name, "size": 123, "regions": regions, "file_attributes": {}}
    if draw(st.booleans()):
        document = {"_via_settings": {}, "_via_img_metadata": document, "_via_attributes": {}}
    return document


@st.composite
def _shapes(draw):
    kind = draw(st.sampled_from(("rect", "circle", "ellipse", "polygon", "polyline")))
    whole = draw(st.booleans())
    places = st.integers(-10, 50) if whole else coordinates
    lengths = st.integers(1, 50) if whole else st.integers(1, 50) | st.floats(0.01, 50)
    x, y, a, b = draw(places), draw(places), draw(lengths), draw(lengths)
    if kind == "rect":
        return {"name": kind, "x": x, "y": y, "width": a, "height": b}
    if kind == "circle":
        return {"name": kind, "cx": x, "cy": y, "r": a}
    if kind == "ellipse":
        return {"name": kind, "cx": x, "cy": y, "rx": a, "ry": b, "theta": draw(st.floats(-7, 7))}
    points = draw(st.lists(st.tuples(places, places), min_size=3, max_size=9))
    return {"name": kind, "all_points_x": [px for px, _ in points], "all_points_y": [py for _, py in points]}


def via_photos(document):
    """[(name, {number: region})] of the photos of a VIA file that have regions, as JSON has them."""
    entries = document.get("_via_img_metadata", document)
    numbered = [(entry["filename"], entry.get("regions") or {}) for entry in entries.values()]
    return [(name, regions if isinstance(regions, dict) else dict(enumerate(regions)))
            for name, regions in numbered if regions]


def via_class(region):
    """The name of the class of a region of `via_documents`; None if it has none, "?" if no one can tell."""
    attributes = region.get("region_attributes") or {}
    values = list(attributes.values())
    if not values:
        return None
    is_ticked = isinstance(values[0], dict) and all(ticked is True for ticked in values[0].values())
    value = list(values[0]) if is_ticked else values[:1]
    is_plain = len(value) == len(values) == 1 and type(value[0]) in (str, int) and str(value[0]).strip()
    return str(value[0]).strip() if is_plain else "?"


# What makes a region one that nobody can use: each changes a good one. The others have one class each.
def _shape(**changes):
    return lambda region: region["shape_attributes"].update(changes)


def _first_number(value):
    """Puts something else in the place of a shape's first number, or of its first point's x."""
    def change(region):
        shape = region["shape_attributes"]
        key = list(shape)[1]
        shape[key] = [value, *shape[key][1:]] if isinstance(shape[key], list) else value

    return change


def _no_area(region):
    shape = region["shape_attributes"]
    for key in ("width", "height", "r", "rx", "ry"):
        if key in shape:
            shape[key] = 0
    for key in ("all_points_x", "all_points_y"):
        if key in shape:
            shape[key] = shape[key][:2]


def _too_few(region):
    """Takes a number away, or a coordinate of the last point."""
    shape = region["shape_attributes"]
    last = list(shape)[2]
    shape[last] = shape[last][:-1] if isinstance(shape[last], list) else None


REGION_FAULTS = {
    "text": _first_number("x"), "bool": _first_number(True), "nan": _first_number(math.nan), "far": _first_number(1e10),
    "endless": _first_number(-math.inf), "list": _first_number([1]), "no area": _no_area, "too few": _too_few,
    "point": _shape(name="point"), "no name": _shape(name=None), "odd name": _shape(name=["rect"]),
    "theta": _shape(theta="x"), "no shape": lambda region: region.pop("shape_attributes"),
    "shape": lambda region: region.update(shape_attributes=[1]), "nothing": lambda region: region.clear(),
    "attributes": lambda region: region.update(region_attributes=["kite"]),
    "no class": lambda region: region.update(region_attributes={}),
    "empty class": lambda region: region.update(region_attributes={"kind": " "}),
    "two classes": lambda region: region.update(region_attributes={"kind": {"kite": True, "balloon": True}}),
}  # fmt: skip


@st.composite
def broken_via_documents(draw):
    """(document, text): a VIA file with a region that nobody can use, and how a message names that region."""
    document = draw(via_documents(NAMED))
    regions = [(name, number) for name, numbered in via_photos(document) for number in numbered]
    assume(len(regions) > 1)
    document = json.loads(json.dumps(document))  # no part of it is shared
    name, number = draw(st.sampled_from(regions))
    REGION_FAULTS[draw(st.sampled_from(sorted(REGION_FAULTS)))](dict(via_photos(document))[name][number])
    return document, f"{name}, region {number}"
