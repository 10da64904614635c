"""The notebooks: as they are committed, and executed anew on drawn shapes and on photos; and what refuses bad ones."""

import functools
import os
import re
from pathlib import Path

import nbformat
import pytest
import scripts
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
# Each with the photos that it is about, beside the shapes that all can show.
NOTEBOOKS = {
    "demo": None, "inspect_balloon_data": "balloon", "inspect_balloon_model": "balloon", "inspect_data": "coco",
    "inspect_model": "coco", "inspect_nucleus_data": "nucleus", "inspect_nucleus_model": "nucleus",
    "inspect_weights": "coco", "train_shapes": "balloon",
}  # fmt: skip

refresh = scripts.load_script(FOLDER, "refresh")
each = pytest.mark.parametrize("name", NOTEBOOKS)


@functools.cache
def committed(name):
    return refresh.read(FOLDER / f"{name}.ipynb")


def figures(notebook):
    return sum("image/png" in output.get("data", ()) for cell in notebook.cells for output in cell.get("outputs", ()))


def run(name, folder, **values):
    """A notebook executed anew; what it saves goes to a folder that is thrown away."""
    if "LOGS" in refresh.parameters(committed(name))[1]:
        values["LOGS"] = os.path.relpath(folder, FOLDER)  # it is printed, and no path of this machine shall be
    return refresh.execute(FOLDER / f"{name}.ipynb", **values)


# ------------------------------------------------------------------ the nine
def test_all_nine_are_there():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NOTEBOOKS)
    readme = (FOLDER / "README.md").read_text()
    assert [name for name in NOTEBOOKS if f"({name}.ipynb)" not in readme] == []


@each
def test_is_committed_with_sound_outputs(name):
    assert refresh.problems(committed(name)) == []


@each
def test_is_laid_out_as_all_are(name):
    notebook = committed(name)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    index, names = refresh.parameters(notebook)
    assert index == 1 and {"DATA", "FOLDER", "SEED"} <= set(names)
    lines = notebook.cells[1].source.splitlines()
    assert lines[0].startswith('DATA = "shapes"  # ')
    assert [line for line in lines if not re.fullmatch(r"[A-Z_]+ = (None|\d+|\".*?\")  # .+", line)] == []
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert "%matplotlib inline" in code[1] and re.search(r"^import sources$", code[1], re.MULTILINE)
    assert [source for source in code if len(source.splitlines()) > 25] == [], "cells stay short"
    clean = nbformat.from_dict(notebook)
    refresh.clean(clean)
    assert nbformat.writes(clean) == nbformat.writes(notebook), f"python notebooks/refresh.py {name}"


@pytest.mark.slow
@each
def test_runs_anew_on_shapes(name, tmp_path):
    notebook = run(name, tmp_path)
    assert refresh.problems(notebook) == []
    assert figures(notebook) == figures(committed(name)), f"outputs are old: python notebooks/refresh.py {name}"


@pytest.mark.parametrize(("name", "data"), [(name, data) for name, data in NOTEBOOKS.items() if data])
def test_runs_on_photos(name, data, data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("MRCNN_DATA", str(data_dir))
    notebook = run(name, tmp_path, DATA=data)
    # Nobody commits these outputs, so they may be larger, and show where the photos lie.
    allowed = re.compile("must stay below|path of this machine")
    assert [text for text in refresh.problems(notebook) if not allowed.search(text)] == []
    assert figures(notebook) > 0


@pytest.mark.slow
@pytest.mark.parametrize("data", [pytest.param("coco", marks=pytest.mark.long), "balloon",
                                  pytest.param("nucleus", marks=pytest.mark.long)])  # fmt: skip
def test_the_demo_shows_photos_without_weights_of_their_own(data, tmp_path):
    assert refresh.problems(run("demo", tmp_path, DATA=data)) == []


# ------------------------------------------------------------------ broken ones
def make_notebook(path, *sources, parameters='DATA = "shapes"  # of what'):
    """Writes a notebook that has not been executed, and returns its path."""
    cells = [new_markdown_cell("# A title", id="title"), new_code_cell(parameters, id="parameters")]
    cells[1].metadata.tags = ["parameters"]
    cells += [new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(sources)]
    nbformat.write(new_notebook(cells=cells, metadata=refresh.METADATA), path)
    return path


FIGURE = "from IPython.display import Image, display\ndisplay(Image(b'\\x89PNG\\r\\n\\x1a\\n', format='png'))"


def executed(*outputs, source="1 + 1", id="cell"):
    """A notebook with a figure and these outputs."""
    picture = new_output("display_data", {"image/png": "iVBORw0KGgo="})
    return new_notebook(cells=[new_code_cell(source, id=id, execution_count=1, outputs=[picture, *outputs])])


@pytest.mark.parametrize(
    ("notebook", "message"),
    [
        (executed(new_output("error", ename="KeyError", evalue="'x'")), "cell 0 ('1 + 1') raised KeyError: 'x'"),
        (executed(new_output("stream", name="stderr", text="UserWarning: oh\n")), "wrote to stderr: UserWarning: oh"),
        (executed(new_output("stream", name="stdout", text="saved to /home/me/x.h5")), "this machine: /home/me"),
        (executed(source="open('C:\\\\data\\\\x')"), "a path of this machine: C:\\"),
        (executed(new_output("execute_result", {"text/plain": "<A.B object at 0x7f12345678>"})), "address in memory"),
        (executed(new_output("display_data", {"text/plain": "x" * 2_000_000})), "must stay below 2 MB"),
        (executed(id="Cell_One"), "has the id 'Cell_One'"),
        (new_notebook(cells=[new_code_cell("1", id="a")]), "cell 0 ('1') was not executed"),
        (new_notebook(cells=[]), "it has no figure"),
    ],
)
def test_problems_are_named(notebook, message):
    assert message in "\n".join(refresh.problems(notebook))
    with pytest.raises(refresh.NotebookError, match="^some.ipynb:\n"):
        refresh.check(notebook, "some.ipynb")


def test_a_sound_notebook_has_no_problems():
    shown = [new_output("stream", name="stdout", text="1/2 of https://example.org/home/page, ../mrcnn, a/tmp/b\n")]
    assert refresh.problems(executed(*shown)) == []


def progress_line(seconds, per_step, waited):
    """A line as Keras's bar leaves it, with its colours."""
    bold, green, end = "\x1b[1m", "\x1b[32m", "\x1b[0m"
    return f"{bold}12/12{end} {green}━━{end} {bold}{seconds}{end} {per_step} - loss: 2.1 - data_wait: {waited}"


@pytest.mark.parametrize("times", [("19s", "367ms/step", "1.9100"), ("1:05", "2s/step", "0.0000e+00")])
def test_times_are_taken_out(times):
    bar = progress_line(*times)
    text = f"Checkpoint path: ../logs/shapes20261121T1833/mask_{{epoch:04d}}.h5\n{bar}\n{bar.partition(' - ')[0]}\n"
    notebook = executed(new_output("stream", name="stdout", text=text))
    refresh.clean(notebook)
    folder, *lines = notebook.cells[0].outputs[1].text.splitlines()
    assert folder == "Checkpoint path: ../logs/shapesYYYYMMDDTHHMM/mask_{epoch:04d}.h5"
    assert [re.sub(r"\x1b\[\d+m", "", line).rstrip() for line in lines] == ["12/12 ━━ - loss: 2.1", "12/12 ━━"]


def test_what_differs_from_run_to_run_is_taken_out():
    text = f"from {FOLDER.parent}/mrcnn"
    notebook = executed(new_output("stream", name="stdout", text=text))
    notebook.metadata = {"language_info": {"name": "python", "version": "3.99"}, "widgets": {}}
    notebook.cells[0].metadata = {"execution": {"iopub.status.busy": "now"}, "tags": ["kept"]}
    refresh.clean(notebook)
    assert notebook.metadata == refresh.METADATA and notebook.cells[0].metadata == {"tags": ["kept"]}
    assert notebook.cells[0].outputs[1].text == "from ../mrcnn"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\nprint(x / 0)", r"broken.ipynb: cell 3 \('x = 1'\): .*(\n.*)*ZeroDivisionError"),
        ("import warnings\nwarnings.warn('beware')", r"broken.ipynb:\n  cell 3 .*wrote to stderr: .*beware"),
        ("import os\nos._exit(1)", r"broken.ipynb: cell 3 \('import os'\): Kernel died"),
    ],
)
def test_a_broken_notebook_is_refused_and_stays_as_it_is(source, message, tmp_path):
    path = make_notebook(tmp_path / "broken.ipynb", FIGURE, source)
    before = path.read_bytes()
    with pytest.raises(refresh.NotebookError, match=message):
        refresh.refresh(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_a_sound_notebook_is_replaced_and_two_runs_are_equal(tmp_path, monkeypatch, capsys):
    path = make_notebook(tmp_path / "sound.ipynb", FIGURE, "print(DATA)")
    monkeypatch.setattr(refresh, "FOLDER", tmp_path)
    refresh.main(["sound"])
    first = path.read_bytes()
    notebook = refresh.read(path)
    assert notebook.cells[3].outputs[0].text == "shapes\n" and notebook.cells[3].execution_count == 3
    refresh.main([])
    assert path.read_bytes() == first and list(tmp_path.iterdir()) == [path]
    assert refresh.execute(path, DATA="coco").cells[4].outputs[0].text == "coco\n"
    assert path.read_bytes() == first
    assert "sound: " in capsys.readouterr().out


def test_what_cannot_be_executed_is_named(tmp_path, monkeypatch, capsys):
    path = make_notebook(tmp_path / "sound.ipynb")
    with pytest.raises(ValueError, match="sound.ipynb has no parameter SIZE; it has DATA"):
        refresh.execute(path, SIZE=3)
    (tmp_path / "text.ipynb").write_text("no JSON")
    with pytest.raises(refresh.NotebookError, match=r"text.ipynb is no notebook"):
        refresh.execute(tmp_path / "text.ipynb")
    with pytest.raises(refresh.NotebookError, match="tagged 'parameters'; found 0"):
        refresh.parameters(new_notebook(cells=[new_code_cell("x = 1")]))
    monkeypatch.setattr(refresh, "FOLDER", tmp_path)
    with pytest.raises(SystemExit, match="1 of 1 notebooks were left as they were: dmeo"):
        refresh.main(["dmeo"])
    assert "there is no notebook dmeo.ipynb" in (error := capsys.readouterr().err) and "sound, text" in error
