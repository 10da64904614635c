"""Samples as modules: they lie in no package, so they are loaded by their path."""

import importlib.util


def load_script(folder, name):
    """The module {folder}/{name}.py."""
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
