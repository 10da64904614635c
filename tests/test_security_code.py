"""No shell and no other program is started, and no code is taken from files: in all modules, and for a picture."""

import ast
import os
from pathlib import Path

import PIL.Image
import pytest

from mrcnn.data.dataset import Dataset

ROOT = Path(__file__).resolve().parents[1]

# What may stand in one file, and why.
ALLOWED = {
    # messages between the processes of one training, which run the same program and were started by its user
    "mrcnn/distribution/processes.py": {"import pickle", "pickle.dumps", "pickle.loads"},
}
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "subprocess", "pty",
           "yaml", "tarfile", "multiprocessing", "runpy", "ctypes", "_ctypes", "cffi", "zipimport", "pexpect",
           "webbrowser", "dbm"}  # fmt: skip
NAMES = {"eval", "exec", "compile", "__import__", "breakpoint", "execfile"}
ATTRIBUTES = {"system", "startfile", "forkpty", "extractall", "unpack_archive", "load_model", "model_from_json",
              "model_from_config", "from_config", "enable_unsafe_deserialization", "deserialize_keras_object", "mktemp",
              "ProcessPoolExecutor", "spec_from_file_location", "SourceFileLoader", "exec_module", "load_library",
              "load_op_library", "find_library", "load_state_dict_from_url", "read_pickle"}  # fmt: skip
# os.execvpe, os.spawnlp, os.posix_spawnp, os.popen, os.fork, asyncio.create_subprocess_exec and all their kin
BEGINNINGS = ("execl", "execv", "spawn", "posix_spawn", "popen", "fork", "create_subprocess_", "subprocess_")
# What may be a pickle or a program: numpy.load, torch.load, torch.jit.load, torch.hub.load, tf.saved_model.load.
LOADS = {"load", "loadtxt", "genfromtxt", "unsafe_load", "load_from_disk"}
LOADERS = {"np", "numpy", "torch", "jit", "hub", "tf", "tensorflow", "saved_model", "package", "skops"}


def is_forbidden(name):
    return name in ATTRIBUTES or name.startswith(BEGINNINGS)


def findings(tree):
    """What of the above a module's code does."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {f"import {alias.name}" for alias in node.names if alias.name.split(".")[0] in MODULES}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"from {node.module}"} if (node.module or "").split(".")[0] in MODULES else set()
            loads = LOADS if (node.module or "").split(".")[-1] in LOADERS else set()
            found |= {alias.name for alias in node.names if is_forbidden(alias.name) or alias.name in loads}
        elif isinstance(node, ast.Attribute):
            owner = getattr(node.value, "id", getattr(node.value, "attr", ""))  # also of torch.hub in torch.hub.load
            if is_forbidden(node.attr) or owner in MODULES or (owner in LOADERS and node.attr in LOADS):
                found.add(f"{owner}.{node.attr}")
        elif isinstance(node, ast.Name) and node.id in NAMES:
            found.add(node.id)
        elif isinstance(node, ast.keyword) and node.arg in ("shell", "allow_pickle", "safe_mode"):
            found.add(f"{node.arg}=")
        elif isinstance(node, ast.Constant) and node.value in MODULES:
            found.add(f"the text {node.value!r}")  # for importlib
    return found


def sources():
    return [path for folder in ("mrcnn", "samples") for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_shell_no_other_program_and_no_code_from_files(path):
    name = path.relative_to(ROOT).as_posix()
    assert findings(ast.parse(path.read_text(encoding="utf-8"))) == ALLOWED.get(name, set())


@pytest.mark.parametrize("line", [
    "import pickle", "from pickle import loads", "import os; os.system('ls')", "from os import system", "eval('1')",
    "subprocess.run('ls', shell=True)", "run(x, shell=True)", "yaml.load(x)", "np.load(x, allow_pickle=True)",
    "np.load(x)", "keras.saving.load_model(x)", "importlib.import_module('pickle')", "__import__('os')",
    "tarfile.open(x).extractall()", "load(x, safe_mode=False)", "import multiprocessing.pool",
    "os.execvpe('ls', [], {})", "os.execlpe('ls')", "os.spawnvp(0, 'ls', [])", "os.spawnlpe(0, 'ls')", "os.popen('ls')",
    "os.posix_spawnp('ls', [], {})", "os.forkpty()", "from os import execvpe, spawnvpe", "from os import fork",
    "asyncio.create_subprocess_exec('ls')", "asyncio.create_subprocess_shell('ls')", "loop.subprocess_exec(x)",
    "from asyncio.subprocess import create_subprocess_exec", "torch.load(x)", "torch.hub.load(x)", "torch.jit.load(x)",
    "from torch import load", "from numpy import load", "tf.saved_model.load(x)", "import ctypes",
    "ctypes.CDLL('x.so')", "from ctypes import CDLL", "np.ctypeslib.load_library('x', '.')",
    "importlib.import_module('ctypes')", "tf.load_op_library('x.so')", "pd.read_pickle(x)",
    "importlib.util.spec_from_file_location('x', 'x.py')",
    "concurrent.futures.ProcessPoolExecutor()", "shutil.unpack_archive(x)",
])  # fmt: skip
def test_the_search_finds(line):
    assert findings(ast.parse(line))


@pytest.mark.parametrize("line", [
    "json.load(x)", "model.load_weights(x)", "keras.ops.exp(x)", "pool.submit(x)",
    "importlib.util.find_spec('tensorboard')", "threading.Thread(target=x)", "concurrent.futures.ThreadPoolExecutor(2)",
    "self.execute(x)", "from . import model",
])  # fmt: skip
def test_the_search_leaves_what_is_harmless(line):
    assert not findings(ast.parse(line))


def test_no_ghostscript_for_a_photo(tmp_path, monkeypatch):
    """PIL would start it for an image in PostScript, whatever the name of the file says."""
    mark = tmp_path / "called"
    for name in ("gs", "gswin64c", "gswin32c"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {mark}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    for mode in ("RGB", "CMYK", "L"):
        PIL.Image.new(mode, (8, 6)).save(tmp_path / "photo.eps")
        os.replace(tmp_path / "photo.eps", tmp_path / "photo.jpg")
        photos = Dataset()
        photos.add_image("mine", "photo", tmp_path / "photo.jpg")
        with pytest.raises(ValueError, match=r"image 'photo' of source 'mine' \(.*photo\.jpg\)"):
            photos.load_image(0)
    assert not mark.exists()
