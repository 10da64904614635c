"""The project around the code: metadata that stands once, what a wheel holds, what an import pulls in."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

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
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    everything = CORE.union(*(requirement_names(extra) for extra in PROJECT["optional-dependencies"].values()))
    assert "torch==2.13.0" in pins
    assert requirement_names(pins) <= everything


def test_class_names_of_coco():
    assert len(mrcnn.COCO_CLASS_NAMES) == len(set(mrcnn.COCO_CLASS_NAMES)) == 81
    numbers = {"BG": 0, "person": 1, "car": 3, "cat": 16, "dining table": 61, "toothbrush": 80}
    assert {name: mrcnn.COCO_CLASS_NAMES.index(name) for name in numbers} == numbers


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
