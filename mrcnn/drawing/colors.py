"""Colours that tell instances and classes apart, in lightness too."""

import colorsys
import random
import zlib

import numpy as np

GOLDEN_RATIO = 0.618034  # steps of it spread hues evenly, however many there are
# (saturation, brightness) in turn: the first colours differ in lightness too, for those who see few hues.
SHADES = ((1.0, 1.0), (0.5, 0.55), (1.0, 1.0))
CLASS_COLORS = 999  # colours that a class's name can be given
# Of two sides of a comparison (Okabe and Ito): told apart by the colour-blind too.
TRUTH, PREDICTION = (0.0, 0.62, 0.45), (0.84, 0.37, 0.0)
# Of several curves or groups in one figure, from the same palette.
CURVES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


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


def instance_colors(count):
    """The colours of the instances of an image, the same in every run.

    Args:
        count: int, number of instances.

    Returns:
        list of `count` tuples (red, green, blue) of floats, 0..1; neighbours differ in hue and in lightness.
    """
    return [numbered_color(number) for number in range(count)]


def class_color(name):
    """(red, green, blue), 0..1, that a class of this name has in every image, data set and process."""
    return numbered_color(zlib.crc32(str(name).encode()) % CLASS_COLORS)


def class_colors(names):
    """The colours of classes, which depend on their names alone: the same in every image, data set and process.

    Args:
        names: iterable of str.

    Returns:
        dict name -> (red, green, blue) of floats, 0..1.
    """
    return {name: class_color(name) for name in names}


def choose_colors(colors, names):
    """Turns what a caller may ask for into one colour per instance.

    Args:
        colors: None, one per instance; "class", one per class name; or [N, (red, green, blue)], 0..1, or a list of N
            names of colours as matplotlib knows them.
        names: list of N str, the class name of each instance.

    Returns:
        [N, (red, green, blue)] float, 0..1.

    Raises:
        ValueError: another text, another number of colours, or values outside 0..1.
    """
    count = len(names)
    if colors is None:
        colors = instance_colors(count)
    elif isinstance(colors, str):
        if colors != "class":
            raise ValueError(f"colors must be None, 'class' or a list of {count} colours; received {colors!r}")
        colors = [class_color(name) for name in names]
    if any(isinstance(color, str) for color in colors):
        from matplotlib.colors import to_rgb

        colors = [to_rgb(color) for color in colors]
    colors = np.asarray(colors, float).reshape(-1, 3) if len(colors) == 0 else np.asarray(colors, float)
    if colors.shape != (count, 3) or not np.all((colors >= 0) & (colors <= 1)):
        raise ValueError(
            f"colors must hold (red, green, blue) from 0 to 1 for each of {count} instances; received an array of "
            f"shape {colors.shape}" + (f", {colors.min():g} to {colors.max():g}" if colors.size else "")
        )
    return colors


def ink_on(color):
    """"white" or "black", whichever text can be read on a ground of this colour, 0..1."""
    return "white" if np.dot(color, (0.299, 0.587, 0.114)) < 0.55 else "black"
