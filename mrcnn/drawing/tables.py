"""Tables: HTML in a notebook, aligned text elsewhere."""

import html
import sys

import numpy as np

OVERFLOW = 1000  # no weight of a healthy network is larger


class Flagged(str):
    """The text of a cell that calls for attention: red in a notebook."""


def display_table(table, header=False):
    """Shows a table: as HTML in a notebook, elsewhere as aligned text.

    Args:
        table: list of rows, each a list of cells; anything that `str` takes, shown as it is.
        header: bool, whether the first row holds the names of the columns.
    """
    rows = [[cell if isinstance(cell, str) else str(cell) for cell in row] for row in table]
    if _in_notebook():
        from IPython.display import HTML, display

        display(HTML(_html(rows, header)))
    else:
        print(_text(rows, header))


def _in_notebook():
    """Whether this runs in a Jupyter kernel; IPython is not imported to find out."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def _html(rows, header):
    lines = []
    for number, row in enumerate(rows):
        tag = "th" if header and number == 0 else "td"
        cells = (f'<{tag} style="text-align: left; white-space: pre">{_html_cell(cell)}</{tag}>' for cell in row)
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _html_cell(cell):
    text = html.escape(cell)
    return f'<span style="color: #c00; font-weight: bold">{text}</span>' if isinstance(cell, Flagged) else text


def _text(rows, header):
    width = max(map(len, rows), default=0)
    padded = [[*row, *[""] * (width - len(row))] for row in rows]
    widths = [max(map(len, column)) for column in zip(*padded)]
    lines = ["  ".join(cell.ljust(size) for cell, size in zip(row, widths)).rstrip() for row in padded]
    if header and lines:
        lines.insert(1, "  ".join("-" * size for size in widths))
    return "\n".join(lines)


def display_weight_stats(model):
    """Shows a table of a model's weights (name, shape, least, largest, deviation) that flags those which look ill.

    "dead?" means that all values of an array are the same, as in a layer that nothing was loaded into or that learns
    nothing (a convolution's bias may well be zeros); "Overflow?" a value beyond 1000, of a variance its root; "not
    finite" NaN or infinity.

    Args:
        model: MaskRCNN or keras Model.
    """
    layers = model.get_trainable_layers() if hasattr(model, "get_trainable_layers") else model.layers
    table = [["WEIGHT NAME", "SHAPE", "MIN", "MAX", "STD", ""]]
    for layer in layers:
        for variable, values in zip(layer.weights, layer.get_weights(), strict=True):
            if values.dtype.kind in "fiu" and values.size:  # not the state of a random generator without numbers
                table.append(_weight_row(layer, variable, values))
    display_table(table, header=True)


def _weight_row(layer, variable, values):
    name = getattr(variable, "path", variable.name)
    name = name if name.startswith(layer.name) or "/" in name else f"{layer.name}/{name}"
    values = values.astype(np.float64)
    low, high = values.min(), values.max()
    flags = []
    if not np.isfinite(values).all():
        flags.append("not finite")
    elif max(-low, high) > (OVERFLOW**2 if name.endswith("variance") else OVERFLOW):  # a variance is a square
        flags.append("Overflow?")
    if low == high and values.size > 1 and not name.endswith("bias"):
        flags.append("dead?")
    with np.errstate(invalid="ignore"):
        deviation = values.std()
    numbers = [f"{number:+9.4f}" for number in (low, high, deviation)]
    return [name, str(tuple(values.shape)), *numbers, Flagged(", ".join(flags)) if flags else ""]
