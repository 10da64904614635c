"""Files of COCO instances: reading and checking them, and drawing their masks."""

import contextlib
import io
import json
import math
import os
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image

from mrcnn.data.checks import did_you_mean, nearest
from mrcnn.data.files import check_file

CLIP_BEYOND = 1  # pixels outside of its image from which on a polygon is clipped here: less is how COCO draws borders
MOST_PIXELS = 2**29  # of an image, three times as many as PIL opens: more is a mistake, and no mask of it can be drawn

YEARS = ("2014", "2017")
# The folder of the images of each subset.
FOLDERS = {"train": "train", "val": "val", "minival": "val", "valminusminival": "val"}


def rle_tools():
    """The module of pycocotools that draws and compresses masks."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ImportError('COCO\'s masks need pycocotools: pip install pycocotools') from error
    return mask


def annotations_path(dataset_dir, subset, year):
    """Where COCO has the annotations of a subset."""
    return os.path.join(dataset_dir, "annotations", f"instances_{subset}{year}.json")


def find_annotations(dataset_dir, subset, year):
    """The path of the annotations of a subset, or an error that says what is there instead."""
    path = annotations_path(dataset_dir, subset, year)
    if os.path.isfile(path):
        return path
    if nearest(subset, FOLDERS) and nearest(year, YEARS):  # else it is data of one's own
        try:
            check_subset(subset, year)
        except ValueError as error:
            raise ValueError(f"there is no {path}: {error}") from None
    there = ", ".join(sorted(file.name for file in Path(path).parent.glob("*.json"))) or "no annotations"
    raise FileNotFoundError(f"there is no {path}. The folder has {there}: give the one above annotations/, another "
                            "year or subset, or have it downloaded (auto_download=True, or --download)")


def check_subset(subset, year):
    """Raises a ValueError for a subset or a year that COCO does not have."""
    for what, value, known in (("year", year, YEARS), ("subset", subset, tuple(FOLDERS))):
        if value not in known:
            raise ValueError(f"{what} must be one of {', '.join(known)}; received {value!r}."
                             f"{did_you_mean(value, known)}")
    if FOLDERS[subset] != subset and year != "2014":
        raise ValueError(f"minival and valminusminival are parts of 2014's validation set; of {year} use train and val")


def read_annotations(path):
    """Reads a file of COCO instances.

    Polygons of less than three points enclose nothing and are left out, those that reach outside of their image are
    clipped, and left out if no pixel remains, masks of crowds that have another size are scaled; a warning counts each.
    What an annotation lacks of `iscrowd`, `area` and `bbox`, or has as null or empty, is added.

    Args:
        path: of the JSON file.

    Returns:
        dict of what the file holds; `images`, `annotations` and `categories` are lists of dicts.

    Raises:
        ValueError: it is no JSON, no file of instances, or an annotation cannot be right; the message names the file,
            the annotation and its image.
    """
    data = _read_json(path)
    images = _numbered(path, data["images"], "image", ("id", "file_name", "width", "height"))
    for image in data["images"]:
        sides = image["width"], image["height"]
        if not all(type(side) is int and side > 0 for side in sides) or math.prod(sides) > MOST_PIXELS:
            raise ValueError(f"{path}: image {image['id']!r} has width {sides[0]!r:.60} and height {sides[1]!r:.60}; "
                             "these must be its pixels")
        if not isinstance(image["file_name"], str):
            raise ValueError(f"{path}: image {image['id']!r} has the file_name {image['file_name']!r:.60}; it must "
                             "be text")
    categories = _numbered(path, data["categories"], "category", ("id", "name"))
    for category in data["categories"]:
        if not isinstance(category["name"], str):
            raise ValueError(f"{path}: category {category['id']!r} has the name {category['name']!r:.60}; it must be "
                             "text")
    _numbered(path, data["annotations"], "annotation", ("id",))
    for annotation in data["annotations"]:
        for key in ("iscrowd", "area", "bbox"):
            if annotation.get(key) in (None, "", []):
                annotation.pop(key, None)
    wrong = [(a, problem) for a in data["annotations"] if (problem := _problem(a, images, categories))]
    if wrong:
        annotation, problem = wrong[0]
        more = f" ({len(wrong)} annotations have such problems)" if len(wrong) > 1 else ""
        raise ValueError(f"{path}: {name_of(annotation)} {problem}{more}")
    _clean_polygons(path, data, images)
    _scale_crowds(path, data, images)
    for annotation in data["annotations"]:
        annotation.setdefault("iscrowd", 0)
        if "area" not in annotation or "bbox" not in annotation:
            image = images[annotation["image_id"]]
            rle = to_rle(annotation, image["height"], image["width"])
            annotation.setdefault("area", float(rle_tools().area(rle)))
            annotation.setdefault("bbox", rle_tools().toBbox(rle).tolist())
    return data


def make_coco(data):
    """A pycocotools.coco.COCO of what `read_annotations` returned."""
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):  # it says what it does
        coco = COCO()
        coco.dataset = data
        coco.createIndex()
    return coco


def name_of(annotation):
    """Text that names an annotation and its image."""
    return f"annotation {annotation.get('id')!r} of image {annotation.get('image_id')!r}"


def _read_json(path):
    check_file(path)
    try:
        with open(path, encoding="utf-8-sig") as file:  # some editors put a byte order mark first
            data = json.load(file)
    except (ValueError, RecursionError) as error:  # of the JSON, of its letters, or of lists in lists in lists ...
        raise ValueError(f"{path} is not JSON, or not all of it is there ({error}). Fetch it again") from error
    lacking = [key for key in ("images", "annotations", "categories")
               if not isinstance(data, dict) or not isinstance(data.get(key), list)]  # fmt: skip
    if lacking:
        raise ValueError(f"{path} is no file of COCO instances: it has no list of {', '.join(lacking)}. Such a file is "
                         "called instances_*.json; those of other tools have to be converted")
    return data


def _numbered(path, entries, kind, keys):
    """dict id -> entry of a list, of which each entry must have the keys and an id of its own.

    Ids are whole numbers. Those of images and annotations may be text instead, but not both, for which there is no
    order; class ids are numbers for pycocotools.
    """
    found, kinds = {}, (int,) if kind == "category" else (int, str)
    for place, entry in enumerate(entries):
        lacking = [key for key in keys if not isinstance(entry, dict) or key not in entry]
        if lacking:
            raise ValueError(f"{path}: {kind} {place} of the list has no {', '.join(lacking)}; add it: {entry!r:.200}")
        if type(entry["id"]) not in kinds:
            rule = "whole numbers" if kind == "category" else "whole numbers, or text if all are"
            raise ValueError(f"{path}: {kind} {place} of the list has the id {entry['id']!r:.60}; ids must be {rule}: "
                             "number them anew")
        kinds = (type(entry["id"]),)
        found[entry["id"]] = entry
    if len(found) < len(entries):
        twice, count = Counter(entry["id"] for entry in entries).most_common(1)[0]
        raise ValueError(f"{path}: {count} entries of kind {kind} have the id {twice!r}; give each its own")
    return found


def _problem(annotation, images, categories):
    """What is wrong with an annotation and what to do about it, or None."""
    image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
    image = images.get(image_id) if type(image_id) in (int, str) else None
    if image is None:
        return "belongs to an image that the file does not list; remove it, or add the image to images"
    if type(category_id) is not int or category_id not in categories:
        return f"has the category {category_id!r:.60}, which the file does not list; known are {_names(categories)}"
    if (is_crowd := annotation.get("iscrowd", 0)) not in (0, 1):
        return f"has iscrowd {is_crowd!r:.60}; it must be 0 or 1"
    if not _is_number(area := annotation.get("area", 0)):
        return f"has the area {area!r:.60}, which is no number; remove it, and it is computed"
    box = annotation.get("bbox", [0] * 4)
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return f"has the bbox {box!r:.60}, which must be four numbers; remove it, and it is computed"
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, list):
        return _problem_of_polygons(segmentation)
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= set(segmentation):
        return f"has no mask: segmentation must be polygons, or RLE with size and counts; it is {segmentation!r:.60}"
    counts, size = segmentation["counts"], segmentation["size"]
    if not isinstance(size, list) or not all(isinstance(side, int) and side > 0 for side in size) or len(size) != 2:
        return f"has RLE of the size {size!r:.60}, which should be [height, width]"
    covered = _covered(counts)
    if covered is None:
        return f"has RLE counts that are no lengths of runs: {counts!r:.60}; draw it again"
    if covered != math.prod(size):
        return f"has RLE counts of {covered} pixels for a mask of {size}; draw it again"
    if size != [image["height"], image["width"]] and not annotation.get("iscrowd"):
        return (f"has a mask of (height, width) {size}, but its image has {[image['height'], image['width']]}; draw it "
                "again")
    return None


def _is_number(value):
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # JSON knows larger ones


def _covered(counts):
    """Number of pixels that RLE runs over, inside and outside of its mask; None if `counts` is nothing of that kind."""
    if isinstance(counts, list):
        return sum(counts) if set(map(type, counts)) == {int} and min(counts) >= 0 else None
    if not isinstance(counts, str) or not counts.isascii():
        return None
    # Compressed, a character less 48 has five bits of a number, lowest first, and a sixth if more follow. Numbers are
    # signed, and from the fourth on the difference to the last but one.
    codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    ends = np.flatnonzero(codes < 32)
    starts = np.append(0, ends[:-1] + 1)
    lengths = ends - starts + 1
    if lengths.max() > 7:
        return None  # more than 32 bits
    shifts = 5 * (np.arange(codes.size) - np.repeat(starts, lengths))
    runs = np.add.reduceat((codes & 31) << shifts, starts)
    runs[codes[ends] & 16 > 0] -= 1 << 5 * lengths[codes[ends] & 16 > 0]
    runs[1::2], runs[2::2] = runs[1::2].cumsum(), runs[2::2].cumsum()
    return int(runs.sum()) if runs.min() >= 0 else None


def _problem_of_polygons(polygons):
    for polygon in polygons:
        if not isinstance(polygon, list):
            return f"has a polygon that is no list of numbers x, y, x, y, ... but {polygon!r:.60}"
        if len(polygon) % 2:
            return f"has a polygon of {len(polygon)} numbers, which cannot be pairs of x and y; draw it again"
        try:
            is_finite = math.isfinite(sum(polygon))
        except (TypeError, OverflowError):
            is_finite = False
        if not is_finite:
            return f"has a polygon with something that is no number: {polygon!r:.60}; draw it again"
    return None


def _names(categories):
    return ", ".join(f"{number}: {entry['name']}" for number, entry in list(categories.items())[:100])


def _clean_polygons(path, data, images):
    """Removes polygons of less than three points, clips those that reach outside, and removes what shows nothing.

    A polygon beyond the image that touches its border is clipped to a line: nobody could find such an object.
    """
    thin, outside, gone = [], [], 0
    for annotation in data["annotations"]:
        polygons, image = annotation["segmentation"], images[annotation["image_id"]]
        if not isinstance(polygons, list):
            continue
        width, height = image["width"], image["height"]
        kept = [polygon for polygon in polygons if len(polygon) >= 6]
        thin += [annotation] * max(len(polygons) - len(kept), not polygons)
        for place, polygon in enumerate(kept):
            xs, ys = polygon[0::2], polygon[1::2]
            if min(polygon) < -CLIP_BEYOND or max(xs) > width + CLIP_BEYOND or max(ys) > height + CLIP_BEYOND:
                outside.append(annotation)
                kept[place] = _clip(polygon, width, height)
                gone += not kept[place]
        annotation["segmentation"] = [polygon for polygon in kept if polygon]
    data["annotations"] = [a for a in data["annotations"] if a["segmentation"]]
    left = f"; of {gone} nothing is left" if gone else ""
    for found, what in ((thin, "polygons have less than three points and are left out"),
                        (outside, f"polygons reach outside of their image and are clipped{left}")):
        if found:
            warnings.warn(f"{path}: {len(found)} {what}, the first in {name_of(found[0])}", stacklevel=4)


def _clip(polygon, width, height):
    """The part of a polygon within the image; empty if it covers no pixel."""
    from matplotlib.path import Path
    from matplotlib.transforms import Bbox

    path = Path(np.reshape(polygon, (-1, 2)).astype(float)).clip_to_bbox(Bbox([[0, 0], [width, height]]))
    part, tools = path.vertices.ravel().tolist(), rle_tools()
    covers = len(part) >= 6 and tools.area(tools.frPyObjects([part], height, width)).any()
    return part if covers else []


def _scale_crowds(path, data, images):
    """Scales the masks of crowds that have another size than their image."""
    tools, scaled = rle_tools(), []
    for annotation in data["annotations"]:
        image, segmentation = images[annotation["image_id"]], annotation["segmentation"]
        shape = [image["height"], image["width"]]
        if isinstance(segmentation, dict) and segmentation["size"] != shape:
            mask = tools.decode(to_rle(annotation, *segmentation["size"]))
            rows, columns = (np.arange(new) * old // new for new, old in zip(shape, mask.shape))
            rle = tools.encode(np.asfortranarray(mask[rows][:, columns]))
            annotation["segmentation"] = {"size": shape, "counts": rle["counts"].decode("ascii")}
            scaled.append(annotation)
    if scaled:
        warnings.warn(f"{path}: {len(scaled)} masks of crowds have another size than their image and are scaled, the "
                      f"first in {name_of(scaled[0])}", stacklevel=4)


def to_rle(annotation, height, width):
    """Compresses the mask of an annotation; parts outside of the image are cut off.

    Args:
        annotation: COCO annotation; its `segmentation` is a list of polygons, or RLE, compressed or not.
        height, width: int, pixels of its image.

    Returns:
        dict: COCO's compressed RLE, "size" [height, width] and "counts".

    Raises:
        ValueError: the mask has the size of another image.
    """
    tools, segmentation = rle_tools(), annotation["segmentation"]
    if isinstance(segmentation, list):
        return tools.merge(tools.frPyObjects(segmentation, height, width))
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"{name_of(annotation)} has a mask of (height, width) {segmentation['size']}, but its image "
                         f"has {[height, width]}; draw it again")
    if isinstance(segmentation["counts"], list):
        return tools.frPyObjects(segmentation, height, width)
    return segmentation


def decode_part(rle):
    """Draws a mask of which only its box is of interest.

    Args:
        rle: dict, COCO's compressed RLE, as `to_rle` returns it.

    Returns:
        box: (y1, x1, y2, x2) int, pixels.
        part: [y2 - y1, x2 - x1] bool.
    """
    tools = rle_tools()
    x, y, width, height = map(int, tools.toBbox(rle))
    part = tools.decode(rle)[y:y + height, x:x + width].astype(bool, order="C")
    return (y, x, y + height, x + width), part


def check_size(info):
    """(height, width) of an image's annotations; raises a ValueError if its file has another size."""
    size = info["height"], info["width"]
    if info["path"] is not None and os.path.isfile(info["path"]):  # load_image speaks up for one that is missing
        try:
            with PIL.Image.open(info["path"]) as image:
                found = image.height, image.width
        except PIL.UnidentifiedImageError:
            return size  # and for one that is no image
        if found != size:
            raise ValueError(f"image {info['id']!r} of source {info['source']!r} ({info['path']}) has the (height, "
                             f"width) {found}, but its annotations are for {size}; get the original image")
    return size
