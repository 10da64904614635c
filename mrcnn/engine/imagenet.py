"""ImageNet weights for the two residual backbones."""

import hashlib
import os
import re
import sys
import tempfile
from pathlib import Path

import keras

from mrcnn.data.files import check_file
from mrcnn.distribution import processes
from mrcnn.engine.downloads import download

ENVIRONMENT = "MRCNN_IMAGENET_URL"
RESNET50_URL = "https://github.com/fchollet/deep-learning-models/releases/download/v0.2/"
RESNET50_MD5 = "a268eb855778b3df3c7506639542a6af"
TIMEOUT = 60.0

_APPLICATIONS = re.compile(r"conv(\d+)_block(\d+)_([0-3])_(conv|bn)")


def imagenet_weights(backbone: str, cache_dir: str | None = None) -> str:
    """Finds the ImageNet weights of a backbone in Keras's cache, or downloads them into it.

    The environment variable MRCNN_IMAGENET_URL replaces the address of the folder (a mirror); the file has to be the
    same one, so its hash is checked there too. For other weights use `load_weights` with their path.

    Args:
        backbone: "resnet50" or "resnet101".
        cache_dir: Keras's home (~/.keras) by default.

    Returns:
        Path of a file to load by name.

    Raises:
        ValueError: there are no weights for this backbone, or what the address has is another file.
        ConnectionError: it cannot be fetched; what arrived is kept for the next attempt.
        OSError: it cannot be written (the disk is full, ...).
    """
    sources = {"resnet50": _resnet50, "resnet101": _resnet101}
    if backbone not in sources:
        raise ValueError(f"ImageNet weights are known for BACKBONE 'resnet50' and 'resnet101'. Received: {backbone!r}. "
                         "Load a file of your own with load_weights(path, by_name=True).")
    folder, name, md5 = sources[backbone]()
    url = f"{(os.environ.get(ENVIRONMENT) or folder).rstrip('/')}/{name}"
    folders = _cache_folders(cache_dir)
    for path in (folder / name for folder in folders):
        check_file(path)
        if path.exists():
            if _md5(path) == md5:
                return str(path)
            print(f"{path} is not the expected file (MD5 {md5}), and is fetched again")
    folder = next((folder for folder in folders if _is_writable(folder)), folders[0])
    _fetch(url, folder / name, md5, backbone)
    return str(folder / name)


def _fetch(url: str, path: Path, md5: str, backbone: str) -> None:
    def check(part):
        if (found := _md5(part)) != md5:
            raise ValueError(f"{url} is not the expected file: its MD5 is {found}, not {md5}. Set {ENVIRONMENT} to a "
                             f"folder that has the true {path.name}, or load a file of your own.")

    # Processes that train together may all be here: none shall write to the part of another.
    number = processes.index()
    own = path.with_name(f"{path.name}.{number}") if number else path
    print(f"Downloading {url}")
    try:
        download(url, own, check=check, timeout=TIMEOUT)
    except ConnectionError as error:
        raise ConnectionError(f"Cannot fetch the ImageNet weights of {backbone} from {url}: {error}. Try again, set "
                              f"{ENVIRONMENT} to a folder that has {path.name}, or load a file of your own.") from error
    os.replace(own, path)


def _cache_folders(cache_dir: str | None) -> list[Path]:
    """Where Keras keeps its weights, and where it does so when it must not write there."""
    home = cache_dir or os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    temporary = "/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()
    return [Path(home).expanduser() / "models", Path(temporary, ".keras", "models")]


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _md5(path: str | os.PathLike) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _resnet50() -> tuple[str, str, str]:
    return RESNET50_URL, "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", RESNET50_MD5


def _resnet101() -> tuple[str, str, str]:
    module = sys.modules[keras.applications.ResNet101.__module__]      # where Keras keeps its own addresses
    return (module.BASE_WEIGHTS_PATH, "resnet101_weights_tf_dim_ordering_tf_kernels_notop.h5",
            module.WEIGHTS_HASHES["resnet101"][1])


def applications_name(layer: str) -> str:
    """The original's name of a layer of keras.applications' ResNet; any other name as it is.

    Args:
        layer: such as `conv4_block2_0_conv` or `conv1_bn`.

    Returns:
        Such as `res4b_branch1` or `bn_conv1`.
    """
    stem = {"conv1_conv": "conv1", "conv1_bn": "bn_conv1"}
    match = _APPLICATIONS.fullmatch(layer)
    if not match:
        return stem.get(layer, layer)
    stage, block, part, kind = match.groups()
    prefix = "res" if kind == "conv" else "bn"
    return f"{prefix}{stage}{chr(96 + int(block))}_branch{('1', '2a', '2b', '2c')[int(part)]}"
