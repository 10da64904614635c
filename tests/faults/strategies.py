"""What is drawn for the tests of bad input: images, masks, configs, documents of JSON, and damage to any of them.

Mutations are data: an operation, a place (any whole number, taken modulo the number of places there are) and a value.
So hypothesis can shrink them, and the fuzzers draw the same ones from a random generator (`random_mutation`).
"""

import copy
import json
import math
import random

import numpy as np
from hypothesis import strategies as st

# ---------------------------------------------------------------- images

DTYPES = ("uint8", "bool", "int8", "uint16", ">u2", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32",
          "float64", ">f4", "longdouble", "complex64", "object", "S3", "U2", "datetime64[s]")  # fmt: skip
FILLS = ("noise", "zeros", "ones", "full", "negative", "nan", "inf", "unit")
MAX_HEIGHT, MAX_WIDTH = 4000, 6000

# Most are small, so that many can be tried; strips and large photos come as well.
sides = st.one_of(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 600), st.integers(1, 600)),
    st.tuples(st.just(1), st.integers(1, MAX_WIDTH)),
    st.tuples(st.integers(1, MAX_HEIGHT), st.just(1)),
)
large_sides = st.tuples(st.integers(1000, MAX_HEIGHT), st.integers(1000, MAX_WIDTH))
channels = st.sampled_from((None, 3, 3, 3, 3, 1, 2, 4, 5, 0, 64))


@st.composite
def images(draw, sides=sides, dtypes=DTYPES, fills=FILLS, channels=channels):
    """An array of any dtype, number of channels and content, [H, W] or [H, W, channels]."""
    shape = draw(sides)
    count = draw(channels)
    return filled(shape if count is None else (*shape, count), draw(st.sampled_from(dtypes)),
                  draw(st.sampled_from(fills)), draw(st.integers(0, 2**32 - 1)))


def filled(shape, dtype, fill, seed):
    """An array of a dtype, with noise or with values at its limits."""
    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    kind = np.dtype(dtype).kind
    if kind in "OSUM":
        return noise.astype("int64" if kind == "M" else "uint8").astype(dtype)
    if fill == "unit":
        return (noise / 255).astype(dtype)
    if fill in ("nan", "inf", "negative") and noise.size and (kind in "fc" or (fill == "negative" and kind == "i")):
        image = noise.astype(dtype)
        image.flat[seed % image.size] = {"nan": math.nan, "inf": math.inf, "negative": -1}[fill]
        return image
    if fill in ("zeros", "ones"):
        return np.full(shape, int(fill == "ones"), dtype)
    if fill == "full" and kind in "biuf":
        return np.full(shape, True if kind == "b" else (np.iinfo if kind in "iu" else np.finfo)(dtype).max, dtype)
    return noise.astype(dtype)


# ---------------------------------------------------------------- masks

@st.composite
def ground_truths(draw):
    """(image, masks, class_ids) as a data set may return them: mostly good, or wrong in dtype, shape or number.

    Most images are as large as the network's, 64 pixels, so that their masks stay as they are.
    """
    small, long = st.integers(1, 64), st.integers(1, 100)
    height, width = draw(st.tuples(st.just(64), small) | st.tuples(small, st.just(64)) | st.tuples(long, long))
    image = filled((height, width, 3), "uint8", "noise", draw(st.integers(0, 2**32 - 1)))
    count = draw(st.sampled_from((3, 1, 2, 5, 8, 0)))
    shape = [height, width, count]
    off = draw(st.sampled_from((*[""] * 9, "height", "width", "count", "flat")))
    if off == "flat":
        shape = shape[:2]
    elif off:
        place = ("height", "width", "count").index(off)
        shape[place] = max(0, shape[place] + draw(st.sampled_from((-1, 1, 7))))
    share = draw(st.sampled_from((0.3, 1e-3, 0.3, 1.0, 0.0)))
    inside = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).random(shape) < share
    masks = inside.astype(draw(st.sampled_from((*["bool"] * 6, "uint8", "int64", "float32", "float64", "S1", "O"))))
    if draw(st.booleans()) and masks.dtype.kind in "uif":
        masks = masks * masks.dtype.type(draw(st.sampled_from((1, 255))))
    class_ids = draw(st.lists(st.integers(1, 3), min_size=count, max_size=count))
    if count and draw(st.sampled_from((False, False, True))):  # one of them is odd, so that no other one is to blame
        class_ids[draw(st.integers(0, count - 1))] = draw(
            st.sampled_from((1.5, -1, 0, 1.5, 4, -3, 2**40, 1.0, math.nan, 2.5)))
    dtype = draw(st.sampled_from((None, None, None, "int32", "int32", "int64", "uint8", "float32", "O")))
    with np.errstate(all="ignore"):
        try:
            return image, masks, np.array(class_ids, dtype)
        except (ValueError, OverflowError):  # a list that this dtype cannot hold: it is the list then
            return image, masks, class_ids


# ---------------------------------------------------------------- settings

ODD_VALUES = (
    None, True, False, -1, 0, 1, 2, 3, 63, 64, 65, 1.5, 10**9, 10**30, math.nan, math.inf, -math.inf, 1e308, -0.0, "",
    "x", "1", "square", "pad64", "crop", "none", "resnet50", "auto", b"x", [], {}, (), [1], [None], [[1]], (1, 2),
    [1, 2, 3], [8, 16, 24, 32, 48], [math.nan] * 4, {"a": 1}, {"rpn_class_loss": 2}, 1j, object, len, np.float32(2),
    np.int64(64), np.array([1, 2, 3]), np.array(5), np.zeros((2, 2)),
)  # fmt: skip


def settings_of(names):
    """{setting: value}, one to four of the names with odd values."""
    return st.dictionaries(st.sampled_from(names), st.sampled_from(ODD_VALUES), min_size=1, max_size=4)


# ---------------------------------------------------------------- documents of JSON

ODD_JSON = (
    None, True, False, -1, 0, 1, 2, 7, 1.5, -0.0, 10**6, 10**9, 2**31, 2**32, 2**63, 10**30, 10**400, math.nan,
    math.inf, -math.inf, 1e-320, 1e17, 1e308, -1e308, "", "x", "1", "a.png", "../a.png", "/", ".", "\0", "\ud800",
    "é" * 300, [], {}, [1], [None], [[]], [[1, 2]], [{}], {"a": 1}, {"size": [2, 2], "counts": [4]}, "PPYo0",
    [1, 2, 3, 4, 5, 6], [1e9, 1e9, -1e9, 5, 3, 3], ["x", "y", "z"], [0, 0, 0, 0, 0, 0], "rect", "circle", "ellipse",
    "polygon", "polyline",
)  # fmt: skip
OPERATIONS = ("replace", "replace", "replace", "delete", "double", "swap", "rename", "wrap", "unwrap")

mutations = st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 400), st.integers(0, len(ODD_JSON) - 1))


def random_mutation(rng):
    """What `mutations` draws, from a `random.Random`."""
    return rng.choice(OPERATIONS), rng.randrange(400), rng.randrange(len(ODD_JSON))


def places(document):
    """[(container, key)] of everything within a document."""
    found = []
    if isinstance(document, dict | list):
        for key in list(document) if isinstance(document, dict) else range(len(document)):
            found += [(document, key), *places(document[key])]
    return found


def mutated(document, changes):
    """A copy of a document with changes (operation, place, number of an odd value)."""
    document = [copy.deepcopy(document)]  # so that the document itself is a place
    for operation, place, value in changes:
        found = places(document)
        container, key = found[place % len(found)]
        _mutate(container, key, operation, copy.deepcopy(ODD_JSON[value % len(ODD_JSON)]), found[value % len(found)])
        document = document[:1] or [None]
    return document[0]


def _mutate(container, key, operation, value, other):
    node = container[key]
    if operation == "replace":
        container[key] = value
    elif operation == "delete":
        del container[key]
    elif operation == "double":
        if isinstance(container, list):
            container.insert(key, copy.deepcopy(node))
        else:
            container[f"{key}2"] = copy.deepcopy(node)
    elif operation == "swap":
        there = other[0][other[1]]
        container[key], other[0][other[1]] = copy.deepcopy(there), copy.deepcopy(node)  # copies: no loops
    elif operation == "rename" and isinstance(container, dict):
        container[value if isinstance(value, str) else f"{key}x"] = container.pop(key)
    elif operation == "wrap":
        container[key] = [node]
    elif operation == "unwrap" and isinstance(node, dict | list) and node:
        container[key] = next(iter(node.values())) if isinstance(node, dict) else node[0]


def to_bytes(document):
    """JSON as Python writes it, NaN and lone surrogates included."""
    return json.dumps(document).encode()


# ---------------------------------------------------------------- damage to files

DAMAGES = ("flip", "flip", "flip", "cut", "zero", "copy", "drop", "insert")
damages = st.tuples(st.sampled_from(DAMAGES), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))


def random_damage(rng):
    """What `damages` draws, from a `random.Random`."""
    return rng.choice(DAMAGES), rng.randrange(2**32), rng.randrange(2**32)


def damaged(content, changes):
    """Bytes with bits flipped, an end cut off, stretches zeroed, copied, dropped or put in."""
    content = bytearray(content)
    for what, place, extra in changes:
        if not content:
            break
        at, length = place % len(content), 1 + extra % 64
        if what == "flip":
            content[at] ^= 1 << extra % 8
        elif what == "cut":
            del content[at:]
        elif what == "zero":
            content[at:at + length] = bytes(len(content[at:at + length]))
        elif what == "copy":
            source = extra % len(content)
            part = content[source:source + length]
            content[at:at + len(part)] = part
        elif what == "drop":
            del content[at:at + length]
        else:
            content[at:at] = random.Random(extra).randbytes(length)
    return bytes(content)
