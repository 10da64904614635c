"""The base class of data sets."""

import http.client
import io
import os
import urllib.request

import numpy as np
import PIL.Image
import skimage  # its modules are loaded when they are used

from mrcnn.data.files import check_file, kind_of_no_file
from mrcnn.data.transfers import chunks
from mrcnn.geometry.images import standardize_image

ADDRESSES = ("http://", "https://", "ftp://", "file://")
TIMEOUT = 30.0  # seconds of silence after which a server of an image counts as gone
LARGEST = 1 << 29  # bytes of an image from a server, which are read into memory
# Modes of PIL whose channels mean something else, and what to make of them. K of CMYK would pass for an alpha channel.
CONVERTED = {"CMYK": "RGB", "YCbCr": "RGB", "P": "RGBA", "PA": "RGBA"}


class Dataset:
    """Classes, images and masks of one or more sources.

    A data set of your own is a subclass with three methods: one of any name that calls `add_class` and `add_image`;
    `load_mask`; and `image_reference`, for messages. It overrides `load_image` where images do not lie in files, and
    may bring `coco_annotations`, for evaluation, and for speed `load_boxed_masks` and `masks_are_fixed`.

        dataset = MyDataset()
        dataset.load_mine("/path")
        dataset.prepare()

    Attributes:
        image_info: list of dicts with `id`, `source`, `path` and what else was given to `add_image`.
        class_info: list of dicts with `source`, `id`, `name`; entry 0 is the background `BG`.
        source_class_ids: dict, source -> list of class ids of that source, 0 among them (after `prepare`).
        num_classes, class_ids, class_names: number, [num_classes] int, list of str (after `prepare`).
        num_images: int (after `prepare`).
        class_from_source_map, image_from_source_map: dict, "source.id" -> id here (after `prepare`).
        sources: list of str, "" of the background first (after `prepare`).
        masks_are_fixed: bool, to be set to True by a class whose `load_mask` returns the same for an image each time:
            training then loads the masks of an image once, as far as `Config.DATA_CACHE` reaches. A class that
            overrides `load_mask` says it anew. (Images need no word: those that the `load_image` of this class reads
            are kept until their file changes, others are not.)
    """

    masks_are_fixed = False

    def __init__(self, class_map=None):
        """Makes an empty data set.

        Args:
            class_map: accepted as ever; it has no effect.
        """
        self._image_ids = []
        self.image_info = []
        self.class_info = [{"source": "", "id": 0, "name": "BG"}]
        self.source_class_ids = {}

    def add_class(self, source, class_id, class_name):
        """Adds a class; one that is there already stays as it is.

        Args:
            source: str, name of the data set that the class comes from, without dots.
            class_id: int or str, number of the class in that data set.
            class_name: str.

        Raises:
            ValueError: `source` has a dot in it.
        """
        if "." in source:
            raise ValueError(
                f"source must not contain a dot, which separates it from ids; received {source!r}. Try "
                f"{source.replace('.', '_')!r}"
            )
        if not any(info["source"] == source and info["id"] == class_id for info in self.class_info):
            self.class_info.append({"source": source, "id": class_id, "name": class_name})

    def add_image(self, source, image_id, path, **kwargs):
        """Adds an image, without reading it.

        Args:
            source: str, name of the data set that the image comes from.
            image_id: anything that identifies the image in that data set.
            path: str or None, file or address of the image.
            **kwargs: kept with the image in `image_info`, for `load_mask` and the like.
        """
        self.image_info.append({"id": image_id, "source": source, "path": path, **kwargs})

    def image_reference(self, image_id):
        """Says where an image comes from, for messages and debugging; to be overridden.

        Args:
            image_id: int, index of the image.

        Returns:
            str: a link or a path; here an empty one.
        """
        return ""

    def prepare(self, class_map=None):
        """Numbers classes and images; to be called when all are added, and again when more are.

        Args:
            class_map: accepted as ever; it has no effect.
        """
        self.num_classes = len(self.class_info)
        self.class_ids = np.arange(self.num_classes)
        # COCO-like lists name a class and its synonyms, "cat,feline": the first is the one to show.
        self.class_names = [info["name"].split(",")[0] for info in self.class_info]
        self.num_images = len(self.image_info)
        self._image_ids = np.arange(self.num_images)
        self.class_from_source_map = _numbered(self.class_info)
        self.image_from_source_map = _numbered(self.image_info)
        self.sources = list(dict.fromkeys(info["source"] for info in self.class_info))
        self.source_class_ids = {
            source: [i for i, info in enumerate(self.class_info) if i == 0 or info["source"] == source]
            for source in self.sources
        }

    def map_source_class_id(self, source_class_id):
        """Finds the class id of a class of a source.

        Args:
            source_class_id: str, "source.id" such as "coco.12".

        Returns:
            int: the class id in this data set.

        Raises:
            ValueError: there is no such class, or `prepare` was not called.
        """
        known = getattr(self, "class_from_source_map", None)
        if known is None:
            raise ValueError("the data set is not ready: call prepare() after adding classes and images")
        if source_class_id not in known:
            raise ValueError(f"unknown class {source_class_id!r}; known are {', '.join(list(known)[1:]) or 'none'}")
        return known[source_class_id]

    def get_source_class_id(self, class_id, source):
        """Finds the id that a class has in its source.

        Args:
            class_id: int, class id in this data set.
            source: str, name of the source.

        Returns:
            The id given to `add_class`.

        Raises:
            ValueError: the class comes from another source.
        """
        info = self.class_info[class_id]
        if info["source"] != source:
            raise ValueError(f"class {class_id} ({info['name']}) comes from source {info['source']!r}, not {source!r}")
        return info["id"]

    @property
    def image_ids(self):
        """[num_images] int: indices of all images; empty before `prepare`."""
        return self._image_ids

    def source_image_link(self, image_id):
        """Returns the path or address of an image.

        Args:
            image_id: int, index of the image.

        Returns:
            str or None, as given to `add_image`.
        """
        return self.image_info[image_id]["path"]

    def load_image(self, image_id):
        """Reads an image; grey, palette, CMYK, alpha channel and 16 bits become three channels of 8 bits.

        Args:
            image_id: int, index of the image.

        Returns:
            [H, W, 3] uint8, or float32 for files of floats above 1; 0..255.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the image has no path, or its file is no image, or one of an unknown kind.
        """
        info = self.image_info[image_id]
        where = f"image {info['id']!r} of source {info['source']!r} ({info['path']})"
        if info["path"] is None:
            raise ValueError(f"{where} has no path: give one to add_image, or override load_image")
        try:
            image = _read_image(os.fspath(info["path"]))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{where}: there is no such file; check the path given to add_image") from error
        except Exception as error:  # each reader has its own kinds of errors
            reason = (isinstance(error, ValueError) and kind_of_no_file(info["path"])) or type(error).__name__
            reason += f": {error}" if os.fspath(info["path"]).lower().startswith(ADDRESSES) else ""
            raise ValueError(
                f"{where} cannot be read ({reason}). Is it a whole image file of a common format?"
            ) from error
        return standardize_image(image, 3, where)

    def load_mask(self, image_id):
        """Loads the masks of an image; to be overridden.

        Args:
            image_id: int, index of the image.

        Returns:
            masks: [H, W, N] bool, one mask per object; here none, [0, 0, 0].
            class_ids: [N] int32, class of each mask; negative for a crowd.
        """
        return np.zeros((0, 0, 0), bool), np.zeros(0, np.int32)

    def load_boxed_masks(self, image_id):
        """Loads the masks of an image, of each only what its box covers; may be overridden beside `load_mask`.

        Training takes these, where outlines can be drawn without an array as large as the image for each of them. A
        class that overrides `load_mask` but not this method is asked for its `load_mask`.

        Args:
            image_id: int, index of the image.

        Returns:
            masks: `mrcnn.geometry.boxed.BoxedMasks`, the same masks as of `load_mask`.
            class_ids: [N] int32, as of `load_mask`.
            Or, instead of the two, None, as here: `load_mask` is to be asked.
        """
        return None

    def coco_annotations(self, image_id):
        """The objects of an image as COCO annotations, for data sets that have them; may be overridden.

        Evaluation then takes these instead of making them from `load_mask`, and keeps what masks of whole pixels would
        lose: polygons, boxes with decimals, areas.

        Args:
            image_id: int, index of the image.

        Returns:
            list of dicts: `category_id` (int, class id in this data set, also of a crowd), `segmentation` (polygons or
            RLE, in pixels of the image), and optionally `area`, `bbox` [x, y, width, height] and `iscrowd`; or None,
            as here.
        """
        return None


def written_for(dataset, name, method):
    """Whether an attribute of a data set was written with its `method` in mind, as the data set has it.

    That is where it stands in the same class or in one derived from it, or is set on the object: a class that overrides
    `method` alone knows nothing of what the classes above it say of theirs.
    """
    own = getattr(dataset, "__dict__", ())
    if name in own or method in own:
        return name in own
    owner = next(cls for cls in type(dataset).__mro__ if name in vars(cls) or method in vars(cls))
    return name in vars(owner)


def _read_image(path):
    if path.lower().startswith(ADDRESSES):
        return _fetch_image(path)
    check_file(path)
    # Opened here, because the readers that are tried in turn leave a file open that is no image. TIFF files, whose
    # reader is chosen by their name, are left to skimage.
    with open(path, "rb") as file:
        colours = _converted(file)
        if colours is not None:
            return colours
        file.seek(0)
        if not path.lower().endswith((".tif", ".tiff")):
            return skimage.io.imread(file)
    return skimage.io.imread(path)


def _fetch_image(address):
    content = io.BytesIO()
    with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
        announced = int(answer.headers.get("Content-Length") or 0)
        arriving = chunks(answer)
        while announced <= LARGEST and content.tell() <= LARGEST and (chunk := next(arriving, None)):
            content.write(chunk)
    if max(announced, content.tell()) > LARGEST:
        raise ValueError(f"more than {LARGEST:,} bytes, which are not read from a server; fetch it as a file")
    if content.tell() < announced:
        raise http.client.IncompleteRead(content.getvalue(), announced - content.tell())
    content.seek(0)
    colours = _converted(content)
    content.seek(0)
    return skimage.io.imread(content) if colours is None else colours


def _converted(file):
    """[H, W, 3 or 4] uint8 of a file whose channels are not those of grey, RGB or RGBA; None for all others."""
    try:
        image = PIL.Image.open(file)
    except (PIL.UnidentifiedImageError, PIL.Image.DecompressionBombError):
        return None  # other readers may know it, or take it at this size
    if image.format == "EPS":
        raise ValueError("PostScript is a program, and is not run")  # PIL would start Ghostscript
    return np.asarray(image.convert(CONVERTED[image.mode])) if image.mode in CONVERTED else None


def _numbered(infos):
    return {f"{info['source']}.{info['id']}": i for i, info in enumerate(infos)}
