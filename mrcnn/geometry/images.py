"""Images: any kind of pixels to 0..255, four ways to resize, molding, and the meta data that travels along."""

import numbers
import random
import warnings

import numpy as np
import scipy  # its modules, and those of skimage, are loaded when they are used
import skimage

RESIZE_MODES = ("square", "pad64", "crop", "none")


# ------------------------------------------------------------------ pixels
def standardize_image(image, channels=3, where="image"):
    """Converts any common kind of image to channels of 0 to 255.

    Grey becomes three equal channels and an alpha channel is dropped; other numbers of channels must be as expected.
    16 bits are scaled down to 8, floats within [0, 1] up; whole numbers and other floats must lie within [0, 255].
    Nothing is ever wrapped.

    Args:
        image: [H, W] or [H, W, channels found] bool, integer or float.
        channels: int, number of channels wanted.
        where: str, what the image is, for messages.

    Returns:
        [H, W, channels] uint8, or float32 for floats that reach above 1.

    Raises:
        ValueError: no pixels, another number of dimensions or channels, values out of range, not a number.
    """
    try:
        image = np.asarray(image)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{where}: an image must be an array [height, width, channels]; received a "
                         f"{type(image).__name__} that is none ({error})") from error
    if image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(f"{where}: an image must be [height, width, channels] with pixels; received {image.shape}")
    return _to_255(_to_channels(image, channels, where), where)


def _to_channels(image, channels, where):
    found = 1 if image.ndim == 2 else image.shape[2]
    image = image.reshape(*image.shape[:2], found)
    if found == channels:
        return image
    if channels in (1, 3) and found == channels + 1:
        return image[..., :channels]
    if channels == 3 and found in (1, 2):
        return np.repeat(image[..., :1], 3, axis=2)
    raise ValueError(f"{where}: an image of {found} channels (shape {image.shape}), where {channels} are expected")


def _to_255(image, where):
    if image.dtype == np.uint8:
        return image
    if image.dtype == bool:
        return image.astype(np.uint8) * 255
    if image.dtype.kind not in "uif":
        raise ValueError(f"{where}: pixels must be numbers; received dtype {image.dtype}")
    if image.dtype.kind == "u" and image.dtype.itemsize == 2:  # of either byte order
        if 0 < image.max() < 4096:
            warnings.warn(
                f"{where}: of the 16 bits at most 12 are used (largest value {image.max()}), so that it comes out "
                "almost black; if that is not meant, scale it to 0..65535 first",
                stacklevel=4,
            )
        return np.around(image / 257.0).astype(np.uint8)  # 65535 = 255 * 257

    low, high = image.min(), image.max()
    if not (low >= 0 and high <= 255):  # false for NaN too
        raise ValueError(
            f"{where}: {image.dtype} values must lie within 0..255 (floats: 0..1 or 0..255) and be finite; found "
            f"{low} to {high}. Scale the image first"
        )
    if image.dtype.kind == "f":
        if 1 < high < 2:  # an overshoot of 0..1 would come out black
            raise ValueError(
                f"{where}: floats are taken as 0..1 or as 0..255, and these reach {high}. Clip them to 1, or scale "
                "them to 0..255"
            )
        return np.around(image * 255.0).astype(np.uint8) if high <= 1 else image.astype(np.float32)
    return image.astype(np.uint8)


# ------------------------------------------------------------------ resizing
def resize(image, output_shape, order=1, mode="constant", cval=0, clip=True, preserve_range=False,
           anti_aliasing=False, anti_aliasing_sigma=None):
    """Resizes an image: `skimage.transform.resize` with the defaults that the weights were trained with.

    Args:
        image: [H, W, ...] number or bool; bool is taken as 0 and 1.
        output_shape: (height, width) or (height, width, ...).
        order: int, 0 nearest, 1 bilinear, up to 5.
        mode, cval: how to go on outside the image, and its value there.
        clip: bool, keeps the result within the range of the image.
        preserve_range: bool, keeps the values of integers; otherwise they are scaled to [0, 1].
        anti_aliasing, anti_aliasing_sigma: smooth before shrinking.

    Returns:
        [height, width, ...] float64, or float32 for float32 images.
    """
    image = np.asarray(image)
    return skimage.transform.resize(
        image.astype(np.float64) if image.dtype == bool else image, output_shape, order=order, mode=mode, cval=cval,
        clip=clip, preserve_range=preserve_range, anti_aliasing=anti_aliasing, anti_aliasing_sigma=anti_aliasing_sigma,
    )


def resize_image(image, min_dim=None, max_dim=None, min_scale=None, mode="square", rng=None):
    """Resizes an image to what the network takes, keeping its proportions.

    In all modes but "none" the image is first scaled up so that its short side reaches `min_dim`, or by `min_scale` if
    that is more. Then:

    - "square": the long side is limited to `max_dim` and zeros fill up to `max_dim` x `max_dim`;
    - "pad64": zeros fill up to multiples of 64; `max_dim` plays no part;
    - "crop": a random `min_dim` x `min_dim` part is cut out, for training only;
    - "none": the image stays as it is.

    Args:
        image: [H, W, channels] number.
        min_dim, max_dim: int or None, pixels.
        min_scale: float or None.
        mode: str, one of the above.
        rng: `random.Random` for the part to cut out; by default the module `random`.

    Returns:
        image: [height, width, channels], dtype of the argument; fractions of integers are cut off.
        window: (y1, x1, y2, x2) int, pixels: where the picture lies within `image`, without the padding.
        scale: number, by which the picture was multiplied.
        padding: [(top, bottom), (left, right), (0, 0)] int, pixels.
        crop: (y1, x1, height, width) int, pixels of the scaled image, or None.

    Raises:
        ValueError: unknown mode, a size that the mode needs is missing or impossible, or there are no pixels.
    """
    image, scale = scale_image(image, min_dim, max_dim, min_scale, mode)
    image, window, padding, crop = place_image(image, min_dim, max_dim, mode, rng)
    return image, window, scale, padding, crop


def scale_image(image, min_dim=None, max_dim=None, min_scale=None, mode="square"):
    """The first step of `resize_image`, in which nothing is random: scales, without padding or cutting.

    Args:
        image, min_dim, max_dim, min_scale, mode: see `resize_image`.

    Returns:
        image: [height, width, channels], dtype of the argument; the argument itself where it has the size already.
        scale: number, by which it was multiplied.

    Raises:
        ValueError: as `resize_image`.
    """
    image = np.asarray(image)
    _check_resize(image, min_dim, max_dim, min_scale, mode)
    scale = resize_scale(image.shape, min_dim, max_dim, min_scale, mode)
    if scale == 1:
        return image, scale
    size = scaled_size(*image.shape[:2], scale)
    if image.dtype == np.uint8:
        return _resize_bytes(image, size), scale
    return resize(image, size, preserve_range=True).astype(image.dtype), scale


def place_image(image, min_dim=None, max_dim=None, mode="square", rng=None):
    """The second step of `resize_image`: pads the scaled image, or cuts a part out of it.

    Args:
        image: [H, W, channels] number, scaled.
        min_dim, max_dim, mode, rng: see `resize_image`.

    Returns:
        image, window, padding, crop: see `resize_image`.
    """
    h, w = image.shape[:2]
    if mode == "none":
        return image, (0, 0, h, w), [(0, 0), (0, 0), (0, 0)], None
    if mode == "crop":
        rng = rng or random
        y, x = rng.randint(0, h - min_dim), rng.randint(0, w - min_dim)
        image = image[y:y + min_dim, x:x + min_dim]
        return image, (0, 0, min_dim, min_dim), [(0, 0), (0, 0), (0, 0)], (y, x, min_dim, min_dim)

    height, width = (max_dim, max_dim) if mode == "square" else (-(-h // 64) * 64, -(-w // 64) * 64)
    top, left = (height - h) // 2, (width - w) // 2
    padded = np.zeros((height, width, *image.shape[2:]), image.dtype)
    padded[top:top + h, left:left + w] = image
    padding = [(top, height - h - top), (left, width - w - left), (0, 0)]
    return padded, (top, left, top + h, left + w), padding, None


def _resize_bytes(image, size):
    """What `resize` makes of [H, W, channels] uint8, fractions cut off; about twice as fast.

    A channel at a time has half of the terms to add up. The limits of `clip` are whole numbers, so that they can wait
    until the fractions are gone; only the lower one can matter, at the border, beyond which all is 0.
    """
    resized = np.empty((*size, image.shape[2]), np.uint8)
    for channel in range(image.shape[2]):
        resized[..., channel] = enlarge_or_shrink(image[..., channel], size)
    return np.maximum(resized, image.min(), out=resized)


def enlarge_or_shrink(plane, size):
    """`resize` of one plane to (height, width) without its `clip`, to the last bit: [H, W] uint8 or bool -> float64."""
    plane = plane.view(np.uint8) if plane.dtype == bool else plane
    factors = [1 / factor for factor in np.divide(plane.shape, size)]
    return scipy.ndimage.zoom(plane, factors, np.float64, order=1, mode="grid-constant", grid_mode=True)


def scaled_size(height, width, scale):
    """(height, width) of an image after scaling, whole pixels; halves go to the even number."""
    return tuple(max(round(side * scale), min(side, 1)) for side in (height, width))


def resize_scale(image_shape, min_dim=None, max_dim=None, min_scale=None, mode="square"):
    """Computes by what `resize_image` multiplies an image: the original's rule.

    It is enlarged to the minimum, never shrunk for it; the limit of the long side comes last.

    Args:
        image_shape: (height, width) or (height, width, channels), pixels.
        min_dim, max_dim, min_scale, mode: see `resize_image`.

    Returns:
        number.

    Raises:
        ValueError: a side is no positive number.
    """
    if mode == "none":
        return 1
    short, long = sorted(image_shape[:2])
    if not short > 0:
        raise ValueError(f"image_shape must begin with a height and a width of 1 pixel or more; received "
                         f"{tuple(image_shape)}")
    scale = max(1, min_dim / short) if min_dim else 1
    scale = max(scale, min_scale or 0)
    if mode == "square" and max_dim and round(long * scale) > max_dim:
        scale = max_dim / long
    return scale


def _check_resize(image, min_dim, max_dim, min_scale, mode):
    if mode not in RESIZE_MODES:
        raise ValueError(f"mode must be one of {', '.join(RESIZE_MODES)}; received {mode!r}")
    for name, value in (("min_dim", min_dim), ("max_dim", max_dim), ("min_scale", min_scale)):
        if value is not None and not (isinstance(value, numbers.Real) and value >= 0):
            raise ValueError(f"{name} must be a number of 0 or more, or None; received {value!r}")
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"image must be [height, width, channels] with pixels; received shape {image.shape}")
    if mode == "square" and not max_dim:
        raise ValueError(f"mode 'square' needs max_dim, the side of the square; received {max_dim!r}")
    if mode == "pad64" and (min_dim is None or min_dim % 64):
        raise ValueError(f"mode 'pad64' needs a min_dim that is a multiple of 64; received {min_dim!r}")
    if mode == "crop" and not min_dim:
        raise ValueError(f"mode 'crop' needs min_dim, the side of the part to cut out; received {min_dim!r}")


# ------------------------------------------------------------------ molding
def mold_image(image, mean_pixel):
    """Subtracts the mean pixel.

    Args:
        image: [..., channels] number, 0..255.
        mean_pixel: [channels] float.

    Returns:
        [..., channels] float64 (float32 with a float32 `mean_pixel`).

    Raises:
        ValueError: image and mean pixel differ in channels.
    """
    image, mean_pixel = np.asarray(image), np.asarray(mean_pixel)
    if image.shape[-1:] != mean_pixel.shape:
        raise ValueError(f"image has shape {image.shape}, but mean_pixel has {mean_pixel.size} channels: {mean_pixel}")
    return image.astype(np.float32) - mean_pixel


def mold_image_float32(image, mean_pixel):
    """`mold_image` in float32, to the last bit what `mold_image(...).astype(float32)` is, without what lies between.

    Args:
        image: [H, W, channels] number, 0..255.
        mean_pixel: [channels] float.

    Returns:
        [H, W, channels] float32.

    Raises:
        ValueError: image and mean pixel differ in channels.
    """
    image, mean_pixel = np.asarray(image), np.asarray(mean_pixel)
    if image.shape[-1:] != mean_pixel.shape:
        return mold_image(image, mean_pixel)  # which refuses it
    # Long runs, not three channels at a time, and as many rows as stay in a processor's cache.
    rows, mean_row = image.reshape(len(image), -1), np.tile(mean_pixel, image.shape[1])
    molded = np.empty(rows.shape, np.float32)
    for start in range(0, len(rows), 32):
        molded[start:start + 32] = rows[start:start + 32].astype(np.float32) - mean_row
    return molded.reshape(image.shape)


def unmold_image(image, mean_pixel):
    """Adds the mean pixel again: the inverse of `mold_image`.

    Args:
        image: [..., channels] float.
        mean_pixel: [channels] float.

    Returns:
        [..., channels] uint8; fractions are cut off, values outside 0..255 limited.
    """
    return np.clip(np.asarray(image) + np.asarray(mean_pixel), 0, 255).astype(np.uint8)


# ------------------------------------------------------------------ meta
# Where each value lies in a row of image meta; the classes take the rest.
META_FIELDS = {
    "image_id": 0,
    "original_image_shape": slice(1, 4),
    "image_shape": slice(4, 7),
    "window": slice(7, 11),
    "scale": 11,
    "active_class_ids": slice(12, None),
}


def compose_image_meta(image_id, original_image_shape, image_shape, window, scale, active_class_ids):
    """Writes what is known about an image into one row of numbers.

    Args:
        image_id: int, useful for debugging.
        original_image_shape: (H, W, channels) before resizing.
        image_shape: (H, W, channels) after resizing and padding.
        window: (y1, x1, y2, x2) pixels, the picture without padding.
        scale: number, by which the picture was multiplied.
        active_class_ids: [classes] int, 1 for the classes that the image's data set knows.

    Returns:
        [12 + classes] float64, or int64 when `scale` is an integer.
    """
    return np.array([image_id, *original_image_shape, *image_shape, *window, scale, *active_class_ids])


def parse_image_meta(meta):
    """Reads rows of numbers written by `compose_image_meta`.

    Args:
        meta: [batch, 12 + classes] number.

    Returns:
        dict: `image_id` [batch], `original_image_shape` [batch, (H, W, channels)], `image_shape` alike, `window`
        [batch, (y1, x1, y2, x2)] pixels, `active_class_ids` [batch, classes], all int32; `scale` [batch] float32.
    """
    meta = np.asarray(meta)
    return {
        name: meta[..., at].astype(np.float32 if name == "scale" else np.int32) for name, at in META_FIELDS.items()
    }
