"""Augmentation: one adapter for imgaug's augmenters, albumentations' transforms and plain functions.

All are told by how they can be called, so that none of the libraries is needed to train without it.
"""

import copy
import inspect
import random
import warnings

import numpy as np

# The augmenters of imgaug that are applied to masks too: they move pixels without inventing new values.
MASK_AUGMENTERS = (
    "Sequential", "SomeOf", "OneOf", "Sometimes", "Fliplr", "Flipud", "CropAndPad", "Affine", "PiecewiseAffine",
)  # fmt: skip
# Those of its modules that move pixels.
_MOVING_MODULES = ("imgaug.augmenters.flip", "imgaug.augmenters.geometric", "imgaug.augmenters.size")


def augment(image, mask, augmentation, rng=None, where="image"):
    """Applies an augmentation to an image and its masks alike.

    It runs after resizing and must change neither shapes nor dtypes. Images are uint8, as augmenters want them; float
    images arrive as they are, float32 from 0 to 255. Masks are handed over as uint8 of 0 and 1. Three kinds are known
    by how they are called:

    - an augmenter of imgaug (it has `to_deterministic`); `MASK_AUGMENTERS` says which of them are applied to masks;
    - a transform of albumentations, or anything else that is called as `f(image=..., masks=[...])` and returns a dict;
    - a function `f(image, masks)` of [H, W, channels] and [H, W, N], which returns both; if it has an argument `rng`,
      it is given a `numpy.random.Generator` to draw from.

    Args:
        image: [H, W, channels] uint8.
        mask: [H, W, N] bool.
        augmentation: one of the three.
        rng: `random.Random` that all draws follow from: augmenters that can be seeded are, in a copy. Without it they
            go on from their own state. A function that takes no `rng` draws as it likes.
        where: str, names the image in messages.

    Returns:
        image: [H, W, channels], shape and dtype of the argument.
        mask: [H, W, N] bool. Masks may come out empty.

    Raises:
        ValueError: the augmentation is none of the three, changed a shape or a dtype, or made pixels that are not
            finite.
    """
    check_augmentation(augmentation)
    masks = mask.astype(np.uint8)
    if _is_imgaug(augmentation):
        new_image, new_masks = _with_imgaug(image, masks, augmentation, rng)
    elif _takes_keywords(augmentation):
        new_image, new_masks = _with_keywords(image, masks, augmentation, rng, where)
    else:
        new_image, new_masks = _with_function(image, masks, augmentation, rng, where)

    new_image, new_masks = np.asarray(new_image), np.asarray(new_masks)
    name = _name(augmentation)
    _compare(f"{where}: {name} changed the image", image, new_image, (image.dtype,))
    _compare(f"{where}: {name} changed the masks", masks, new_masks, (np.uint8, bool))
    if new_image.dtype.kind == "f" and not np.isfinite(new_image).all():
        raise ValueError(f"{where}: {name} made pixels that are not finite (NaN or infinite)")
    return new_image, new_masks.astype(bool)


def check_augmentation(augmentation):
    """Raises a ValueError if it is nothing that `augment` can call; None means no augmentation."""
    if augmentation is not None and not (_is_imgaug(augmentation) or callable(augmentation)):
        raise ValueError(
            "augmentation must be an imgaug augmenter, an albumentations transform or a function "
            f"f(image, masks) -> (image, masks); received {augmentation!r}"
        )


def warn_of_unmoved_masks(augmentation):
    """Warns of augmenters of imgaug that move the image but, by the rule above, leave its masks where they are."""
    if not hasattr(augmentation, "get_all_children"):
        return
    names = {
        type(child).__name__
        for child in [augmentation, *augmentation.get_all_children(flat=True)]
        if type(child).__module__ in _MOVING_MODULES and type(child).__name__ not in (*MASK_AUGMENTERS, "Noop")
    }
    if names:
        warnings.warn(
            f"{', '.join(sorted(names))} would move images but not their masks, which only "
            f"{', '.join(MASK_AUGMENTERS)} do. Use Affine, or wrap the augmenter into a function f(image, masks).",
            stacklevel=3,
        )


def _is_imgaug(augmentation):
    return hasattr(augmentation, "to_deterministic") and hasattr(augmentation, "augment_image")


def _takes_keywords(augmentation):
    """Whether it cannot be called with an image and masks by position."""
    try:
        parameters = inspect.signature(augmentation).parameters.values()
    except (TypeError, ValueError):
        return False
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters) < 2


def _with_imgaug(image, masks, augmentation, rng):
    import imgaug  # the caller has it: the augmenter came from there

    if rng is not None:
        # A copy, so that neither threads nor earlier images matter.
        augmentation = copy.deepcopy(augmentation)
        if hasattr(augmentation, "seed_"):
            augmentation.seed_(rng.getrandbits(31))
    hooks = imgaug.HooksImages(activator=lambda images, augmenter, *_: type(augmenter).__name__ in MASK_AUGMENTERS)
    # Image and masks must share one draw.
    augmentation = augmentation.to_deterministic()
    new_image = augmentation.augment_image(image)
    # As a batch of one: imgaug takes a single array of many channels for a batch, and warns.
    return new_image, augmentation.augment_images([masks], hooks=hooks)[0] if masks.size else masks


def _with_keywords(image, masks, transform, rng, where):
    if rng is not None:
        transform = copy.deepcopy(transform)
        # Not set_random_seed: it gives each part of a Compose the same seed, so that all flip together or none does.
        if hasattr(transform, "set_random_state"):
            transform.set_random_state(np.random.default_rng(rng.getrandbits(64)), random.Random(rng.getrandbits(64)))
    planes = {"masks": [np.ascontiguousarray(plane) for plane in np.moveaxis(masks, -1, 0)]} if masks.size else {}
    result = transform(image=image, **planes)
    if not isinstance(result, dict) or not {"image", *planes} <= set(result):
        raise ValueError(
            f"{where}: {_name(transform)}(image=..., masks=...) must return a dict with 'image' and 'masks'; it "
            f"returned {sorted(result) if isinstance(result, dict) else type(result).__name__}"
        )
    if not planes:
        return result["image"], masks
    planes = [np.asarray(plane) for plane in result["masks"]]
    if len({plane.shape for plane in planes}) != 1:
        shapes = [plane.shape for plane in planes]
        raise ValueError(f"{where}: {_name(transform)} changed the masks: shapes {shapes}, it was {masks.shape}")
    return result["image"], np.stack(planes, axis=-1)


def _with_function(image, masks, function, rng, where):
    draws = {}
    if rng is not None and "rng" in inspect.signature(function).parameters:
        draws["rng"] = np.random.default_rng(rng.getrandbits(64))
    # A function may work in place; the caller's arrays are not its own.
    result = function(image.copy(), masks, **draws)
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise ValueError(f"{where}: {_name(function)}(image, masks) must return (image, masks); it returned "
                         f"{type(result).__name__}")
    return result


def _compare(what, old, new, dtypes):
    if new.shape != old.shape or new.dtype not in dtypes:
        raise ValueError(
            f"{what} from {old.shape} {old.dtype} to {new.shape} {new.dtype}. An augmentation must keep sizes, number "
            "of masks and dtypes: it runs after resizing, before the mean is subtracted"
        )


def _name(augmentation):
    return getattr(augmentation, "__name__", None) or type(augmentation).__name__
