"""Colours that tell instances and classes apart, also for those who see few hues."""

import colorsys
import random
import zlib

import numpy as np

GOLDEN_RATIO = 0.618034  # steps of it spread hues evenly, however many there are
# (saturation, brightness) in turn: neighbours differ in lightness too, for those who see few hues.
SHADES = ((0.9, 1.0), (1.0, 0.7), (0.5, 1.0))
CLASS_COLORS = 999  # colours that a class's name can be given


def random_colors(N, bright=True):
    """Draws colours with hues as far apart as possible, in random order (of Python's own generator).

    Args:
        N: int, number of colours.
        bright: bool, full brightness; otherwise 70 percent of it.

    Returns:
        list of N tuples (red, green, blue) of floats, 0..1.
    """
    colors = [colorsys.hsv_to_rgb(i / N, 1.0, 1.0 if bright else 0.7) for i in range(N)]
    random.shuffle(colors)
    return colors


def numbered_color(number):
    """(red, green, blue), 0..1, of a number: always the same, and unlike those of the numbers around it."""
    return colorsys.hsv_to_rgb(number * GOLDEN_RATIO % 1, *SHADES[number % len(SHADES)])


def class_color(name):
    """(red, green, blue), 0..1, that a class of this name has in every image, data set and process."""
    return numbered_color(zlib.crc32(name.encode()) % CLASS_COLORS)


def class_colors(names):
    """Colours of classes: a name has the same one in every image, data set and process.

    Args:
        names: list of str.

    Returns:
        list of tuples (red, green, blue), 0..1, one per name.
    """
    return [class_color(name) for name in names]


def colors_of(names, colors):
    """The colour of each instance.

    Args:
        names: list of N str, the instances' classes.
        colors: None, one colour per instance; "class", one per name; or N (red, green, blue), 0..1.

    Returns:
        [N, (red, green, blue)] float, 0..1.

    Raises:
        ValueError: colors are something else.
    """
    count = len(names)
    if colors is None:
        colors = [numbered_color(number) for number in range(count)]
    elif isinstance(colors, str):
        if colors != "class":
            raise ValueError(f"colors must be None, 'class' or a list of {count} colours; received {colors!r}")
        colors = class_colors(names)
    colors = np.asarray(colors, float).reshape(-1, 3) if len(colors) == 0 else np.asarray(colors, float)
    if colors.shape != (count, 3) or not np.all((colors >= 0) & (colors <= 1)):
        raise ValueError(
            f"colors must hold (red, green, blue) from 0 to 1 for each of {count} instances; received an array of "
            f"shape {colors.shape}" + (f", {colors.min():g} to {colors.max():g}" if colors.size else "")
        )
    return colors
