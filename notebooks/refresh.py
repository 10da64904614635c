"""Executes the notebooks anew and keeps their outputs in them.

    python notebooks/refresh.py                     # all of them, in place
    python notebooks/refresh.py demo inspect_data   # some of them

A notebook is replaced only by one that ran well: without errors, without warnings, and small enough for a web page.
"""

import argparse
import os
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

FOLDER = Path(__file__).resolve().parent
LARGEST = 2_000_000  # bytes of a notebook; GitHub shows none that are much larger
TIMEOUT = 600  # seconds of a cell
PARAMETERS = "parameters"  # the tag of the cell that holds a notebook's choices
# What a notebook knows of Python and of its language; the rest of the metadata differs from machine to machine.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
MACHINE_PATH = re.compile(r"(?<![\w./:-])(?:/(?:home|root|Users|tmp|var|opt|usr|mnt|private)/|[A-Z]:\\+)[\w.~-]+")
ADDRESS = re.compile(r"<[^<>\n]* at 0x[0-9a-fA-F]{6,}>")
# What is never the same twice: the times of Keras's progress bar, how long it waited, and when a run was begun.
TIMES = (
    (re.compile(r"\x1b\[1m[\d:.]+s?\x1b\[0m [\d.]+[mu]?s/(?:step|epoch) ?"), ""),
    (re.compile(r" - data_wait: [\d.e+-]+"), ""),
    (re.compile(r"(?<=[a-z])\d{8}T\d{4}(?!\d)"), "YYYYMMDDTHHMM"),
)
IDS = re.compile(r"[a-z0-9-]{1,64}")


class NotebookError(Exception):
    """A notebook that is not as it should be; the message names it, and the cell."""


# ------------------------------------------------------------------ cells
def read(path):
    """The notebook of a file, an `nbformat.NotebookNode`.

    Raises:
        FileNotFoundError: there is no such file; names those that there are.
        NotebookError: it is no notebook.
    """
    path = Path(path)
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.ipynb")))
        raise FileNotFoundError(f"there is no notebook {path.name} in {path.parent}; there are: {known or 'none'}")
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (nbformat.ValidationError, nbformat.reader.NotJSONError, ValueError) as error:
        raise NotebookError(f"{path.name} is no notebook: {str(error).splitlines()[0]}") from error
    return notebook


def parameters(notebook):
    """(index, names) of the cell of parameters: plain assignments of texts, numbers and None.

    Raises:
        NotebookError: there is no such cell, or not one.
    """
    tagged = [n for n, cell in enumerate(notebook.cells) if PARAMETERS in cell.metadata.get("tags", ())]
    if len(tagged) != 1:
        raise NotebookError(f"exactly one cell must be tagged {PARAMETERS!r}; found {len(tagged)}")
    names = re.findall(r"^([A-Z_]+) = ", notebook.cells[tagged[0]].source, re.MULTILINE)
    return tagged[0], names


def where(cell, number):
    """How messages call a cell."""
    first = next((line for line in cell.source.splitlines() if line.strip()), "")
    return f"cell {number} ({first.strip()[:60]!r})"


# ------------------------------------------------------------------ running
def execute(path, **values):
    """Runs a notebook in a kernel of its own, in its own folder, and cleans what it leaves.

    Args:
        path: of the notebook, which stays as it is.
        **values: parameters to set, such as DATA="balloon"; the notebook must have them.

    Returns:
        `nbformat.NotebookNode` with new outputs and without times, so that two runs differ only where their results do.

    Raises:
        FileNotFoundError, ValueError: no such notebook; no such parameter.
        NotebookError: a cell failed, or the kernel died.
    """
    path = Path(path)
    notebook = read(path)
    index, names = parameters(notebook)
    if unknown := set(values) - set(names):
        raise ValueError(f"{path.name} has no parameter {', '.join(sorted(unknown))}; it has {', '.join(names)}")
    if values:
        source = "\n".join(f"{name} = {value!r}" for name, value in values.items())
        notebook.cells.insert(index + 1, nbformat.v4.new_code_cell(source, id="injected-parameters"))
    begun = [0]
    client = NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name="python3", resources={"metadata": {"path": str(path.resolve().parent)}},
        record_timing=False, coalesce_streams=True, extra_arguments=["--log-level=ERROR"],
        on_cell_start=lambda cell, cell_index: begun.append(cell_index),
    )  # fmt: skip
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise NotebookError(f"{path.name}: {where(notebook.cells[begun[-1]], begun[-1])}: {error}") from error
    clean(notebook)
    return notebook


def clean(notebook):
    """Takes out what differs from run to run and from machine to machine, in place."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        for output in cell.get("outputs", ()):
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})
            if "text" in output:
                output.text = _lasting(output.text)
            for kind, text in output.get("data", {}).items():
                if kind.startswith("text/"):
                    output.data[kind] = _lasting(text)


def _lasting(text):
    """A text without times, and with paths of this checkout as they are seen from the notebooks."""
    for pattern, instead in TIMES:
        text = pattern.sub(instead, text)
    return text.replace(str(FOLDER.parent), "..")


# ------------------------------------------------------------------ checking
def problems(notebook):
    """What is wrong with an executed notebook.

    Returns:
        list of str, a line per problem: outputs of errors and warnings, code that was not run, paths of this machine,
        addresses in memory, and a notebook that has no figure or is too large.
    """
    found = []
    for number, cell in enumerate(notebook.cells):
        if not IDS.fullmatch(cell.get("id", "")):
            found.append(f"{where(cell, number)} has the id {cell.get('id')!r}: use small letters, digits and dashes")
        texts = [cell.source]
        if cell.cell_type == "code":
            if cell.source.strip() and not cell.execution_count:
                found.append(f"{where(cell, number)} was not executed")
            found += [f"{where(cell, number)} {problem}" for problem in map(_problem, cell.outputs) if problem]
            texts += [text for output in cell.outputs for text in _texts(output)]
        for text in texts:
            if path := MACHINE_PATH.search(text):
                found.append(f"{where(cell, number)} shows a path of this machine: {path.group()}")
            if address := ADDRESS.search(text):
                found.append(f"{where(cell, number)} shows an address in memory: {address.group()}")
    if not any("image/png" in output.get("data", ()) for cell in notebook.cells for output in cell.get("outputs", ())):
        found.append("it has no figure: execute it, and keep its outputs")
    if (size := len(nbformat.writes(notebook).encode())) >= LARGEST:
        found.append(f"it has {size / 1e6:.1f} MB, and must stay below {LARGEST / 1e6:g} MB: smaller figures, or fewer")
    return found


def _problem(output):
    """What is wrong with an output, or None."""
    if output.output_type == "error":
        return f"raised {output.ename}: {output.evalue}"
    if output.output_type == "stream" and output.name == "stderr":
        return f"wrote to stderr: {output.text.strip()[-500:]}"
    return None


def _texts(output):
    """All texts that an output shows."""
    if output.output_type == "stream":
        return [output.text]
    return [text for kind, text in output.get("data", {}).items() if kind.startswith("text/")]


def check(notebook, name):
    """Raises a NotebookError that lists the problems of an executed notebook, if there are any."""
    if found := problems(notebook):
        raise NotebookError("\n  ".join([f"{name}:", *found]))


# ------------------------------------------------------------------ in place
def refresh(path):
    """Executes a notebook and puts it in the place of the old one, if it is as it should be."""
    path = Path(path)
    notebook = execute(path)
    check(notebook, path.name)
    part = path.with_name(f"{path.name}.part")
    try:
        nbformat.write(notebook, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Execute the notebooks, and keep their outputs in them.")
    parser.add_argument("names", nargs="*", metavar="<name>", help="of notebooks (default: all of them)")
    args = parser.parse_args(arguments)
    paths = [FOLDER / f"{Path(name).stem}.ipynb" for name in args.names] or sorted(FOLDER.glob("*.ipynb"))
    failed = []
    for path in paths:
        print(f"{path.stem} ...", flush=True)
        try:
            refresh(path)
        except (FileNotFoundError, NotebookError) as error:
            failed.append(path.stem)
            print(error, file=sys.stderr)
        else:
            print(f"{path.stem}: {path.stat().st_size / 1e3:.0f} kB")
    if failed:
        sys.exit(f"refresh.py: {len(failed)} of {len(paths)} notebooks were left as they were: {', '.join(failed)}")


if __name__ == "__main__":
    main()
