"""The project around the code: metadata that stands once, what a wheel holds, what an import pulls in."""

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import scripts

import mrcnn

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGE = ROOT / "mrcnn"


def requirement_names(requirements):
    """Names of distributions, this one's own extras replaced by what they stand for."""
    names = set()
    for requirement in requirements:
        name, extras = re.match(r"([A-Za-z0-9._-]+)(?:\[([^]]*)])?", requirement).groups()
        if name != PROJECT["name"]:
            names.add(name.lower())
            continue
        for extra in extras.split(","):
            names |= requirement_names(PROJECT["optional-dependencies"][extra])
    return names


CORE = requirement_names(PROJECT["dependencies"])
PAGES = [path for pattern in ("*.md", "docs/*.md", "notebooks/*.md", "samples/*/*.md", "benchmarks/*.md",
                              "notebooks/*.ipynb") for path in sorted(ROOT.glob(pattern))]  # fmt: skip


def test_the_version_stands_once():
    assert PROJECT["dynamic"] == ["version"] and "version" not in PROJECT
    assert re.fullmatch(r"\d+\.\d+\.\d+", mrcnn.__version__)
    sources = [*PACKAGE.rglob("*.py"), ROOT / "setup.py", ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert [path.name for path in sources if mrcnn.__version__ in path.read_text()] == ["__init__.py"]
    assert f"## {mrcnn.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_core_is_lean():
    assert not [name for name in CORE if re.search("opencv|jupyter|notebook|imaug|albumentations|torch|jax", name)]


def test_requirements_are_what_samples_and_notebooks_need():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines == ["-e .[samples]"]
    assert CORE | requirement_names(PROJECT["optional-dependencies"]["samples"]) >= {
        "tensorflow", "tensorboard", "numpy", "scipy", "scikit-image", "matplotlib", "h5py", "pycocotools", "jupyter",
        "av", "imaug",
    }  # fmt: skip


def test_start_up_check_asks_for_the_same_keras():
    from mrcnn.engine.requirements import NEEDED

    assert f"keras>={NEEDED}" in PROJECT["dependencies"]


def test_constraints_pin_only_what_is_required():
    """Or what the benchmarks measure beside this package."""
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    everything = CORE.union(*(requirement_names(extra) for extra in PROJECT["optional-dependencies"].values()))
    assert "torch==2.13.0" in pins
    assert requirement_names(pins) <= everything | set(scripts.load_benchmark("common").PEERS)
    assert "`pip install -c constraints.txt torch torchvision`" in (ROOT / "docs" / "speed.md").read_text()


def test_class_names_of_coco():
    assert len(mrcnn.COCO_CLASS_NAMES) == len(set(mrcnn.COCO_CLASS_NAMES)) == 81
    numbers = {"BG": 0, "person": 1, "car": 3, "cat": 16, "dining table": 61, "toothbrush": 80}
    assert {name: mrcnn.COCO_CLASS_NAMES.index(name) for name in numbers} == numbers


def text_of(page):
    """A page without its blocks of code; of a notebook its cells of text."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def headings(page):
    """The names that links to places within a page have."""
    titles = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def broken_links(page, root=ROOT):
    """Links of a page, and its pictures, that lead nowhere within `root`; addresses on the web are not asked for."""
    broken = []
    for link in re.findall(r"\[[^]]*]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, place = link.partition("#")
        target = (page.parent / path if path else page).resolve()
        if not target.exists() or not target.is_relative_to(root) or (place and place not in headings(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    assert broken_links(page) == []


def test_broken_links_are_found(tmp_path):
    (tmp_path / "other.md").write_text("# The other page, in short\n")
    good = "[a](other.md) [b](other.md#the-other-page-in-short) [c](#here) [d](https://example.org/nothing)\n"
    code = "```\nlist[0](1)\n```\n"
    bad = "![e](none.png) [f](other.md#there) [g](../)\n"
    page = tmp_path / "page.md"
    page.write_text(f"## Here\n{good}{code}{bad}")
    assert broken_links(page, tmp_path) == ["none.png", "other.md#there", "../"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Paths of a wheel and an sdist of this tree."""
    folder = tmp_path_factory.mktemp("dist")
    succeed("-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


def succeed(*arguments, **options):
    """What Python prints, which must end well."""
    result = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False,
                            **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_package_and_nothing_else(built):
    assert built["sdist"].name == f"mask_rcnn-{mrcnn.__version__}.tar.gz"
    packed = {name for name in zipfile.ZipFile(built["wheel"]).namelist() if ".dist-info/" not in name}
    assert packed == {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_wheel_and_sdist_can_be_installed(kind, built, tmp_path):
    pip = ["-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps", "--no-build-isolation"]
    succeed(*pip, "--target", tmp_path / "installed", built[kind])
    code = "import sys; sys.path.insert(0, 'installed'); import mrcnn; print(mrcnn.__version__, mrcnn.__file__)"
    version, path = succeed("-c", code, cwd=tmp_path).split(maxsplit=1)
    assert version == mrcnn.__version__ and Path(path.strip()).is_relative_to(tmp_path / "installed")


@pytest.mark.parametrize("module", ["mrcnn", "mrcnn.config"])
def test_light_modules_pull_in_no_framework(module, run_python):
    code = f"import sys, {module}; print([m for m in ('keras', 'tensorflow', 'matplotlib') if m in sys.modules])"
    assert run_python(code).strip() == "[]"


@pytest.mark.backend
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_do_without_tensorflow(backend, run_python):
    code = "import sys, mrcnn.model; print('tensorflow' in sys.modules)"
    assert run_python(code, backend).splitlines()[-1] == "False"
