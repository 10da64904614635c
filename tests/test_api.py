"""Every public name of the original is there, with a compatible signature (the list: api_names.txt)."""

import ast
import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest

LISTED = Path(__file__).with_name("api_names.txt").read_text().splitlines()
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def entries():
    """(module, line) for each name listed."""
    module = None
    for line in LISTED:
        if line.startswith("["):
            module = line.strip("[]")
        elif line and not line.startswith("#"):
            yield module, line


def signature_of(text):
    """The `inspect.Signature` that a text like "(a, b=1, **kwargs)" stands for."""
    arguments = ast.parse(f"def f{text}: pass").body[0].args
    defaults = [inspect.Parameter.empty] * (len(arguments.args) - len(arguments.defaults))
    defaults += [ast.literal_eval(default) for default in arguments.defaults]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        inspect.Parameter(a.arg, kind, default=d) for a, d in zip(arguments.args, defaults, strict=True)
    ]
    if arguments.kwarg:
        parameters.append(inspect.Parameter(arguments.kwarg.arg, inspect.Parameter.VAR_KEYWORD))
    return inspect.Signature(parameters)


def differences(wanted, found):
    """What keeps calls that fit the signature `wanted` from fitting `found`; empty if nothing does."""
    takes_kwargs = inspect.Parameter.VAR_KEYWORD
    named = [p for p in wanted.parameters.values() if p.kind in POSITIONAL]
    offered = [p for p in found.parameters.values() if p.kind in POSITIONAL]
    problems = []
    for place, parameter in enumerate(named):
        if place >= len(offered) or offered[place].name != parameter.name:
            problems.append(f"argument {place} must be {parameter.name}")
        elif offered[place].default != parameter.default:
            problems.append(f"{parameter.name} must have the default {parameter.default!r}")
    for parameter in offered[len(named) :] + [p for p in found.parameters.values() if p.kind.name == "KEYWORD_ONLY"]:
        if parameter.default is inspect.Parameter.empty:
            problems.append(f"the new argument {parameter.name} needs a default")
    if any(p.kind == takes_kwargs for p in wanted.parameters.values()) and not any(
        p.kind == takes_kwargs for p in found.parameters.values()
    ):
        problems.append("must take **kwargs")
    return problems


def resolve(module, dotted):
    """The object, looked up without binding: a method comes back as a function."""
    found = importlib.import_module(module)
    for part in dotted.split("."):
        assert hasattr(found, part), f"{module}.{dotted} is missing"
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("module", "line"), list(entries()), ids=lambda text: text.split("(")[0].split(" =")[0])
def test_name_is_there(module, line):
    if " = " in line and "(" not in line.split(" = ")[0]:
        name, _, value = line.partition(" = ")
        found = resolve(module, name)
        wanted = ast.literal_eval(value)
        if isinstance(found, np.ndarray):
            np.testing.assert_array_equal(found, wanted)
        else:
            assert found == wanted and type(found) is type(wanted)
    elif "(" in line:
        name, bracket, arguments = line.partition("(")
        found = resolve(module, name)
        assert callable(found)
        assert not differences(signature_of(bracket + arguments), inspect.signature(found))
    else:
        resolve(module, line)


def test_list_is_complete():
    names = [line.split("(")[0] for _, line in entries()]
    assert len(names) > 170 and len({(module, line) for module, line in entries()}) == len(names)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("(a, b=1)", "(a)"),  # missing
        ("(a, b=1)", "(a, b=2)"),  # another default
        ("(a, b)", "(b, a)"),  # another order
        ("(a, b=1)", "(a, c=1, b=1)"),  # a new argument in front of an old one
        ("(a)", "(a, b)"),  # a new argument that is not optional
        ("(a, **kwargs)", "(a)"),
    ],
)
def test_incompatible_signatures_are_noticed(wanted, found):
    assert differences(signature_of(wanted), signature_of(found))


def test_new_optional_arguments_are_compatible():
    assert not differences(signature_of("(a, b=(2, 2))"), signature_of("(a, b=(2, 2), c=None, **kwargs)"))


def test_class_bases():
    import keras

    model = importlib.import_module("mrcnn.model")
    assert issubclass(model.BatchNorm, keras.layers.BatchNormalization)
    for name in ("ProposalLayer", "PyramidROIAlign", "DetectionTargetLayer", "DetectionLayer"):
        assert issubclass(getattr(model, name), keras.layers.Layer)
    assert issubclass(model.DataGenerator, keras.utils.PyDataset)
