"""ImageNet weights for the two residual backbones."""

import os
import re
import socket
import sys

import keras

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
        ValueError: there are no weights for this backbone, or the file came out damaged.
        ConnectionError: it cannot be fetched.
    """
    sources = {"resnet50": _resnet50, "resnet101": _resnet101}
    if backbone not in sources:
        raise ValueError(f"ImageNet weights are known for BACKBONE 'resnet50' and 'resnet101'. Received: {backbone!r}. "
                         "Load a file of your own with load_weights(path, by_name=True).")
    folder, name, md5 = sources[backbone]()
    url = f"{(os.environ.get(ENVIRONMENT) or folder).rstrip('/')}/{name}"
    # Keras opens the address without a time limit: a server that goes silent would hold the program for ever.
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        return keras.utils.get_file(name, url, cache_subdir="models", file_hash=md5, cache_dir=cache_dir)
    except ValueError as error:
        raise ValueError(f"{url} is not the expected file (MD5 {md5}): {error}") from error
    except Exception as error:      # Keras raises a bare Exception when the server refuses
        raise ConnectionError(f"Cannot fetch the ImageNet weights of {backbone} from {url}: {error}. Try again, set "
                              f"{ENVIRONMENT} to a folder that has {name}, or load a file of your own.") from error
    finally:
        socket.setdefaulttimeout(previous)


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
