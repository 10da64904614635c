"""Annotations drawn with the VGG Image Annotator (VIA), versions 1 and 2: reading, checking and drawing them."""

import json
import math
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import skimage.draw

from mrcnn.data.checks import too_many
from mrcnn.data.files import check_file

# The numbers that VIA writes for each shape; the two last have lists of them.
SHAPES = {
    "rect": ("x", "y", "width", "height"),
    "circle": ("cx", "cy", "r"),
    "ellipse": ("cx", "cy", "rx", "ry"),
    "polygon": ("all_points_x", "all_points_y"),
    "polyline": ("all_points_x", "all_points_y"),
}
FILE_NAME = "via_region_data.json"
SMALLEST = 1e-6  # pixels: what is thinner covers none, and divides by next to nothing
FARTHEST = 2**31  # pixels: no image has as many, and what lies beyond is no coordinate


class Region(NamedTuple):
    """An outlined object: VIA's `shape_attributes` and `region_attributes`, and `where` it is, for messages."""

    shape: dict
    attributes: dict
    where: str


class Photo(NamedTuple):
    """An annotated image; `width` and `height` are None where it cannot be read."""

    name: str
    path: str
    width: int | None
    height: int | None
    regions: list


# ---------------------------------------------------------------- files


def read_folder(folder, keep_empty=False):
    """Reads the VIA file in a folder of photos, and the photos' sizes from their headers.

    The file is `via_region_data.json`, or the only JSON in the folder: exported annotations, or a project.

    Args:
        folder: path.
        keep_empty: False leaves out photos without regions, because VIA also lists those that nobody has annotated yet.

    Returns:
        list of Photo, in the order of the file.

    Raises:
        FileNotFoundError: no such folder, no VIA file in it, or photos that it names are missing.
        ValueError: the file is not VIA's, it has no regions at all, or one of them has no area.
    """
    path = find_file(folder)
    entries = [(name, regions) for name, regions in read_file(path) if regions or keep_empty]
    if not any(regions for _, regions in entries):
        raise ValueError(f"{path}: no image has a region; draw some in VIA, and export the annotations again")
    sizes = _image_sizes(path, [name for name, _ in entries])
    photos = [
        Photo(name, os.path.join(folder, name), *size, regions)
        for (name, regions), size in zip(entries, sizes, strict=True)
    ]
    _warn_of_cut_regions(path, photos)
    return photos


def find_file(folder):
    """The path of the VIA file in a folder; FileNotFoundError if there is none, or no telling which."""
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{folder}: there is no such folder; a data set has the folders train and val")
    path = os.path.join(folder, FILE_NAME)
    found = [path] if os.path.isfile(path) else sorted(map(str, Path(folder).glob("*.json")))
    if len(found) != 1:
        raise FileNotFoundError(
            f"{path}: there is no such file. Export the annotations of VIA as JSON into this folder"
            + (f", which has {len(found)} other JSON files: keep one" if found else "")
        )
    return found[0]


def read_file(path):
    """Reads exported annotations or a project of VIA.

    Args:
        path: of the JSON file.

    Returns:
        list of (file name of the image, list of Region).

    Raises:
        ValueError: it is not VIA's, or a region has no area.
    """
    check_file(path)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # of the JSON, of its letters, or of lists in lists in lists ...
        raise ValueError(_not_via(path, f"it is not JSON, or not all of it is there: {error}")) from error
    if isinstance(content, dict):
        content = content.get("_via_img_metadata", content)  # a project holds more than annotations
    if not isinstance(content, dict):
        raise ValueError(_not_via(path, f"it holds something of type {type(content).__name__}, not a dict of images"))
    images = []
    for key, entry in content.items():
        try:
            images.append(_image(path, entry["filename"], entry.get("regions") or []))
        except (AttributeError, TypeError, KeyError) as error:
            why = f"its entry {key!r} is no image with filename, and regions with shape_attributes"
            why += f": {error}" if isinstance(error, _NoRegion) else ""
            if {"images", "annotations"} <= set(content):
                why = "it looks like COCO's format, which the COCO sample reads"
            raise ValueError(_not_via(path, why)) from error
    for _, regions in images:
        for region in regions:
            check_shape(region.shape, region.where)
    return images


def _not_via(path, why):
    return (
        f"{path} is not a file of the VGG Image Annotator 1 or 2: {why}. Export the annotations as JSON in VIA's menu "
        "'Annotation'"
    )


def _image(path, name, regions):
    # A list since version 2, a dict before.
    numbered = regions.items() if isinstance(regions, dict) else enumerate(regions)
    return os.fspath(name), [_region(region, path, f"{name}, region {number}") for number, region in numbered]


def _region(region, path, where):
    attributes = (region.get("region_attributes") or {}) if isinstance(region, dict) else None
    if not isinstance(attributes, dict) or "shape_attributes" not in region:
        raise _NoRegion(f"{where} is {region!r:.200}")
    return Region(region["shape_attributes"], attributes, f"{path}: {where}")


class _NoRegion(TypeError):
    """Says which region is none."""


def _image_sizes(path, names):
    """[(width, height)] of images beside a VIA file; (None, None) where one cannot be read."""
    folder = os.path.dirname(path)
    missing = [name for name in names if not os.path.isfile(os.path.join(folder, name))]
    if missing:
        raise FileNotFoundError(
            f"{path}: of the {len(names)} images that it annotates, {len(missing)} are not in {folder}: "
            f"{', '.join(missing[:10])}{', ...' if len(missing) > 10 else ''}. Put them there, or remove their entries"
        )
    sizes, unreadable = [], []
    for name in names:
        try:
            with PIL.Image.open(os.path.join(folder, name)) as image:
                sizes.append(image.size)
        except (OSError, ValueError, PIL.Image.DecompressionBombError):
            sizes.append((None, None))
            unreadable.append(name)
    if unreadable:  # a few stay, so that training counts them
        problem = f"{folder}: {len(unreadable)} of {len(names)} images cannot be read: {', '.join(unreadable[:20])}"
        if too_many(len(unreadable), len(names)):
            raise ValueError(f"{problem}. Restore them, or remove them from {path}")
        _warn(problem)
    return sizes


def _warn_of_cut_regions(path, photos):
    """Warns once, with a count, if outlines reach out of their images."""
    cut, gone = [], 0
    for photo in photos:
        for region in photo.regions if photo.width else ():
            x1, y1, x2, y2 = extent(region.shape)
            if min(x1, y1) < 0 or x2 > photo.width or y2 > photo.height:
                cut.append(region.where)
                gone += not draw_shape(region.shape, (photo.height, photo.width)).any()
    if cut:
        left = f"; of {gone} of them nothing is left, and they are no objects" if gone else ""
        _warn(
            f"{path}: {len(cut)} regions reach out of their images and are cut off at the border{left}. The first is "
            f"{cut[0].removeprefix(path + ': ')}. Many of them mean that images were resized after they were annotated"
        )


def _warn(message):
    warnings.warn(message, stacklevel=5)  # at the line that loads the data set


# ---------------------------------------------------------------- classes


def class_names(regions, attribute=None):
    """Finds the class of each region in a region attribute: text, a choice, or the only box that is ticked.

    Args:
        regions: list of Region.
        attribute: str, name of the attribute; None takes the only one there is, "" none.

    Returns:
        list of str, or of None where no attribute holds the class.

    Raises:
        ValueError: there are several attributes, not this one, or a region whose attribute does not name one class.
    """
    found = sorted({name for region in regions for name in region.attributes})
    if attribute is None and len(found) > 1:
        raise ValueError(
            f"{regions[0].where} and others have the attributes {', '.join(found)}: say with attribute= (--attribute) "
            "which of them holds the class"
        )
    if attribute and attribute not in found:
        raise ValueError(
            f"{regions[0].where} and others have no attribute {attribute!r}; they have {', '.join(found) or 'none'}"
        )
    if attribute == "" or not found:
        return [None] * len(regions)
    return [_class_name(region, attribute or found[0]) for region in regions]


def _class_name(region, attribute):
    value = region.attributes.get(attribute)
    values = [name for name, ticked in value.items() if ticked] if isinstance(value, dict) else [value]
    names = [str(value).strip() for value in values if value is not None and str(value).strip()]
    if len(names) != 1:
        raise ValueError(f"{region.where}: attribute {attribute!r} must name one class; received {value!r}")
    return names[0]


def class_id(name, classes, where):
    """The place of a class in the list, from 1 on; ValueError if it is not there, or could be any of several."""
    if name is None and len(classes) > 1:
        raise ValueError(f"{where}: no attribute says which of the classes it is: {', '.join(classes)}")
    if name is not None and name not in classes:
        raise ValueError(f"{where}: unknown class {name!r}; known are {', '.join(classes)}")
    return 1 if name is None else classes.index(name) + 1


# ---------------------------------------------------------------- shapes


def check_shape(shape, where):
    """Raises a ValueError unless a shape has an area that can be drawn."""
    kind = shape.get("name") if isinstance(shape, dict) else repr(shape)
    if not isinstance(kind, str) or kind not in SHAPES:
        raise ValueError(f"{where} is a {kind!s:.60}, which has no area; use {', '.join(SHAPES)}")
    needs = f"{where}: a {kind} needs {' and '.join(SHAPES[kind])}"
    dimensions = 1 if kind.startswith("poly") else 0
    sides = [_numbers(shape.get(key), dimensions) for key in SHAPES[kind]]
    if any(side is None for side in [*sides, _numbers(shape.get("theta", 0), 0)]):
        raise ValueError(f"{needs}, all numbers up to {FARTHEST}; received {shape}")
    if dimensions and sides[0].shape != sides[1].shape:
        raise ValueError(f"{needs} of the same number; received {sides[0].size} and {sides[1].size}")
    if dimensions and sides[0].size < 3:
        raise ValueError(f"{where} is a {kind} of {sides[0].size} points, but an area has 3; delete or redraw it")
    if not dimensions and min(sides[2:]) < SMALLEST:
        raise ValueError(f"{where} is a {kind} without area: {shape}; delete or redraw it")


def _numbers(value, dimensions):
    """A number, or with one dimension a list of numbers, as an array; None if it is anything else, or out of reach."""
    values = value if dimensions else [value]
    if not isinstance(values, list) or not set(map(type, values)) <= {int, float}:
        return None
    if not all(abs(number) <= FARTHEST for number in values):  # false for NaN
        return None
    return np.array(value, float)


def extent(shape):
    """(x1, y1, x2, y2) of a shape, pixels."""
    kind = shape.get("name")
    if kind == "rect":
        return shape["x"], shape["y"], shape["x"] + shape["width"], shape["y"] + shape["height"]
    if kind == "circle":
        reach_x = reach_y = shape["r"]
    elif kind == "ellipse":
        cos, sin = math.cos(shape.get("theta", 0)), math.sin(shape.get("theta", 0))
        reach_x = math.hypot(shape["rx"] * cos, shape["ry"] * sin)
        reach_y = math.hypot(shape["rx"] * sin, shape["ry"] * cos)
    else:
        x, y = shape["all_points_x"], shape["all_points_y"]
        return min(x), min(y), max(x), max(y)
    return shape["cx"] - reach_x, shape["cy"] - reach_y, shape["cx"] + reach_x, shape["cy"] + reach_y


def draw_shape(shape, size):
    """Draws the inside of a shape; what reaches out of the image is cut off.

    Args:
        shape: dict, VIA's `shape_attributes`; a polyline counts as closed, and what has no name is a polygon.
        size: (height, width) of the image, pixels.

    Returns:
        [height, width] bool.
    """
    mask = np.zeros(size, bool)
    (y1, x1, y2, x2), part = draw_part(shape, size)
    mask[y1:y2, x1:x2] = part
    return mask


def draw_part(shape, size):
    """As `draw_shape`, but no more of the image than the shape may lie in.

    Args:
        shape, size: as for `draw_shape`.

    Returns:
        box: (y1, x1, y2, x2) int, pixels within the image.
        part: [y2 - y1, x2 - x1] bool.
    """
    kind = shape.get("name")
    if kind == "rect":
        x1, y1, x2, y2 = (max(round(side), 0) for side in extent(shape))
        y1, x1, y2, x2 = (int(min(side, limit)) for side, limit in zip((y1, x1, y2, x2), size * 2))
        return (y1, x1, y2, x2), np.ones((y2 - y1, x2 - x1), bool)
    if kind == "circle":
        return _part_of(*skimage.draw.disk((shape["cy"], shape["cx"]), shape["r"], shape=size))
    if kind == "ellipse":
        rotation = -shape.get("theta", 0)  # VIA turns clockwise, skimage the other way
        y, x, ry, rx = (shape[key] for key in ("cy", "cx", "ry", "rx"))
        return _part_of(*skimage.draw.ellipse(y, x, ry, rx, shape=size, rotation=rotation))
    return _fill_polygon(shape["all_points_x"], shape["all_points_y"], size)


def _part_of(rows, columns):
    """(box, part) of pixels given one by one."""
    if not len(rows):
        return (0, 0, 0, 0), np.zeros((0, 0), bool)
    top, left = int(rows.min()), int(columns.min())
    part = np.zeros((int(rows.max()) + 1 - top, int(columns.max()) + 1 - left), bool)
    part[rows - top, columns - left] = True
    return (top, left, top + part.shape[0], left + part.shape[1]), part


def _fill_polygon(x, y, size):
    """(box, part) of a polygon, with the pixels that scikit-image gave it until 0.16, and so the original.

    Of the pixels on the outline itself, those on its left and upper sides belong to it; later versions take all.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    # The part of the image that it may lie in.
    top, left = np.clip([np.floor(y.min()), np.floor(x.min())], 0, size).astype(int).tolist()
    bottom, right = np.clip([np.ceil(y.max()), np.ceil(x.max())], 0, size).astype(int).tolist()
    last_x, last_y = np.roll(x, 1), np.roll(y, 1)
    rows = np.arange(top, bottom)[:, np.newaxis]
    row, edge = np.nonzero((y <= rows) != (last_y <= rows))
    crossing = (last_x - x)[edge] * (rows[row, 0] - y[edge]) / (last_y - y)[edge] + x[edge]
    # A pixel is inside if an odd number of edges crosses its row to its right.
    odd = np.zeros((bottom - top, right - left + 1), bool)
    np.logical_xor.at(odd, (row, np.clip(np.ceil(crossing), left, right).astype(int) - left), True)
    inside = np.logical_xor.accumulate(odd[:, ::-1], axis=1)[:, ::-1][:, 1:]
    return (top, left, bottom, right), inside
