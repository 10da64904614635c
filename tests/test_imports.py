"""The rooms of the package: imports go downwards only, and a config is read in few places."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mrcnn"
FILES = sorted(PACKAGE.rglob("*.py"))

# Each may import from those before it, and rooms from themselves.
ROOMS = ["geometry", "data", "drawing", "network", "distribution", "engine"]
PUBLIC = ["utils", "config", "model", "visualize", "parallel_model", "__main__"]
FRAMEWORKS = {"tensorflow", "jax", "torch"}
MAY_IMPORT_FRAMEWORKS = {
    "network/kernels.py", "network/cropping.py", "network/compiled.py", "distribution/devices.py",
    "distribution/processes.py",
}  # fmt: skip
IN_GEOMETRY = {"numpy", "scipy", "skimage"}
MAY_READ_CONFIG = {
    "config.py", "utils.py", "model.py", "__main__.py", "data/loader.py", "network/assemble.py", "engine/mask_rcnn.py",
    "engine/command_line.py",  # it is a part of the samples
}


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


def imports(path):
    """Full names of all that a file of the package imports, wherever in it."""
    return list(names_imported(path.read_text(), ["mrcnn", *path.relative_to(PACKAGE).parts[:-1]]))


def names_imported(code, package):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def rank(name):
    """How high a module of the package lies: at its room, or above all rooms; what `mrcnn` itself holds, below them."""
    first = name.split(".")[1] if "." in name else "__init__"
    if first.isupper() or first in ("__init__", "__version__"):
        return -1
    return ROOMS.index(first) if first in ROOMS else len(ROOMS)


def config_reads(path):
    """`config.SETTING`, `self.config.SETTING` and the like, as (line, setting)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr.isupper():
            owner = node.value
            last = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if last.lower().lstrip("_").endswith(("config", "cfg")):
                yield node.lineno, node.attr


def test_there_is_something_to_check():
    assert {"utils.py", "config.py", "geometry/boxes.py", "data/dataset.py"} <= {name_of(path) for path in FILES}
    for path in FILES:
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        assert parts[0] in [*ROOMS, *PUBLIC, "__init__"], f"{name_of(path)} lies in no room that this test knows"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_downwards(path):
    own = rank("mrcnn." + name_of(path).removesuffix(".py").replace("/", "."))
    above = [name for name in imports(path) if name.split(".")[0] == "mrcnn" and rank(name) > own]
    assert not above, f"{name_of(path)} imports {above}, which lie above it"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_frameworks_are_imported_in_few_places(path):
    found = {name.split(".")[0] for name in imports(path)} & FRAMEWORKS
    assert not found or name_of(path) in MAY_IMPORT_FRAMEWORKS, f"{name_of(path)} imports {found}"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("geometry/*.py")), ids=name_of)
def test_geometry_needs_arrays_only(path):
    found = {name.split(".")[0] for name in imports(path)} - {"mrcnn"} - sys.stdlib_module_names
    assert found <= IN_GEOMETRY, f"{name_of(path)} imports {found - IN_GEOMETRY}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_pictures_are_for_the_public_face_alone(path):
    if not name_of(path).startswith("drawing/"):
        found = [name for name in imports(path) if name.startswith("mrcnn.drawing")]
        assert not found or name_of(path) == "visualize.py", f"{name_of(path)} imports {found}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_config_is_read_in_few_places(path):
    found = list(config_reads(path))
    assert not found or name_of(path) in MAY_READ_CONFIG, f"{name_of(path)} reads {found}; give it the values"


def test_what_the_checks_would_find(tmp_path):
    """A file that breaks the rules is seen to."""
    bad = tmp_path / "bad.py"
    bad.write_text("def f(self):\n    import jax.numpy\n    return self.config.NAME, other.NAME, cfg.BATCH_SIZE\n")
    assert list(config_reads(bad)) == [(3, "NAME"), (3, "BATCH_SIZE")]
    assert [name.split(".")[0] for name in names_imported(bad.read_text(), ["mrcnn", "geometry"])] == ["jax"]
    relative = "from . import boxes\nfrom ..engine.weights import load\nfrom mrcnn import utils"
    assert list(names_imported(relative, ["mrcnn", "geometry"])) == [
        "mrcnn.geometry.boxes", "mrcnn.engine.weights.load", "mrcnn.utils",
    ]
    assert rank("mrcnn.geometry.boxes") < rank("mrcnn.data") < rank("mrcnn.network") < rank("mrcnn.engine.weights.load")
    assert rank("mrcnn") < rank("mrcnn.geometry") and rank("mrcnn.engine") < rank("mrcnn.utils")


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_have_empty_front_doors(room):
    """Importing one module of a room must not import the others."""
    body = ast.parse((PACKAGE / room / "__init__.py").read_text()).body
    assert len(body) == 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
