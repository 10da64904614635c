"""What the notebooks look through: printed arrays, and any intermediate of the network by name."""

from __future__ import annotations

import re
from collections import OrderedDict

import keras
import numpy as np

from mrcnn.network.assemble import MaskRCNNModel

IMAGE_INPUTS = ("input_image", "input_image_meta", "input_anchors")
NMS_STEP = "rpn_non_max_suppression"
# the original's users also ask for the operation inside, whose name followed TensorFlow's version
_NMS_OPERATION = re.compile(rf"(?<={NMS_STEP})/NonMaxSuppressionV\d")


def log(text, array=None):
    """Prints a text and, in columns, the shape, range and dtype of an array.

    Args:
        text: str.
        array: any array, or None for the text alone.
    """
    if array is not None:
        array = np.asarray(array)
        text = f"{text:25}shape: {array.shape!s:20}  "
        low, high = (f"{float(array.min()):10.5f}", f"{float(array.max()):10.5f}") if array.size else (" " * 10,) * 2
        text += f"min: {low}  max: {high}  {array.dtype}"
    print(text)


class Step(keras.layers.Layer):
    """One intermediate of a proposal or detection layer, as a layer of its own on the same inputs."""

    def __init__(self, steps, step, **kwargs):
        super().__init__(**kwargs)
        self.steps = steps
        self.step = step
        self.supports_jit = keras.backend.backend() != "tensorflow"

    def call(self, inputs):
        value = self.steps(*inputs)[self.step]
        # the original's tensor belonged to one image
        return value[0] if self.step == NMS_STEP else value

    def compute_output_spec(self, inputs):
        # traced with sizes that are known, because JAX cannot compare open ones
        rows = next((tensor.shape[1] for tensor in inputs if len(tensor.shape) > 2 and tensor.shape[1]), 64)
        known = [keras.KerasTensor([side or rows for side in tensor.shape], tensor.dtype) for tensor in inputs]
        spec = super().compute_output_spec(known)
        return spec if self.step == NMS_STEP else keras.KerasTensor((None, None, *spec.shape[2:]), spec.dtype)


class Inspector:
    """Finds tensors of a model by name and computes them; what it builds for this is kept.

    Args:
        model: the keras.Model of either mode.
    """

    def __init__(self, model):
        self.model = model
        self._tensors = {}
        self._models = {}

    def ancestor(self, tensor, name, checked=None):
        """Finds a tensor that another one is computed from.

        Args:
            tensor: KerasTensor of the model, where the search starts.
            name: regular expression of the whole name: that of a layer (`fpn_p3`), of a layer inside a nested model
                (`rpn_model/rpn_class_raw`) or of a step of a layer (`ROI/refined_anchors`), with or without `:0`.
            checked: list of tensors that have been looked at; it grows. For callers of the original.

        Returns:
            KerasTensor, or None if nothing of that name leads to `tensor`.
        """
        pattern = re.compile(re.sub(r":0$", "", _NMS_OPERATION.sub("", name)))
        checked = [] if checked is None else checked
        seen, queue = {id(t) for t in checked}, [tensor]
        while queue:
            current = queue.pop(0)
            if id(current) in seen:
                continue
            seen.add(id(current))
            checked.append(current)
            history = current._keras_history
            found = self._match(history.operation, pattern)
            if found is not None:
                return found
            queue += history.operation._inbound_nodes[history.node_index].input_tensors
        return None

    def find(self, name):
        """Finds a tensor of the model by name, see `ancestor`; None if there is none."""
        checked = []
        found = (self.ancestor(output, name, checked) for output in self.model.outputs)
        return next((tensor for tensor in found if tensor is not None), None)

    def _match(self, operation, pattern):
        """The tensor of an operation, or of what is inside it, whose name fits."""
        if pattern.fullmatch(operation.name):
            return operation._inbound_nodes[0].output_tensors[0]
        inner = [layer.name for layer in getattr(operation, "layers", [])]
        for part in (*getattr(operation, "step_names", ()), *inner):
            name = f"{operation.name}/{part}"
            if pattern.fullmatch(name):
                if name not in self._tensors:
                    self._tensors[name] = self._inside(operation, part)
                return self._tensors[name]
        return None

    def _inside(self, operation, part):
        """Attaches a step, or a layer of a nested model, to the inputs that its owner has in the model."""
        inputs = operation._inbound_nodes[0].input_tensors
        if part in getattr(operation, "step_names", ()):
            return Step(operation.steps, part, name=f"{operation.name}_{part}")(inputs)
        return keras.Model(operation.inputs, operation.get_layer(part).output)(inputs)

    def resolve(self, outputs):
        """Named outputs as an ordered dict of tensors.

        Args:
            outputs: dict, or list of (name, KerasTensor | layer | name of a tensor) or of names of tensors.

        Raises:
            ValueError: an output is None or unknown.
        """
        if not isinstance(outputs, dict):
            outputs = [(item, item) if isinstance(item, str) else item for item in outputs]
        tensors = OrderedDict()
        for name, value in OrderedDict(outputs).items():
            tensor = self.find(value) if isinstance(value, str) else getattr(value, "output", value)
            if not isinstance(tensor, keras.KerasTensor):
                unknown = ", which the model does not have" if isinstance(value, str) else ""
                raise ValueError(f"outputs: {name!r} must be a tensor of the model, a layer or the name of one; "
                                 f"received {value!r}{unknown}")
            tensors[name] = tensor
        return tensors

    def run(self, outputs, inputs):
        """Computes tensors of the model from its image inputs.

        Args:
            outputs: see `resolve`.
            inputs: dict from input names to arrays; those that the model lacks are not used.

        Returns:
            OrderedDict of arrays; each is logged. Of `ROI/rpn_non_max_suppression` the indices of the first image.

        Raises:
            ValueError: an output is unknown, or needs inputs that are no images.
        """
        tensors = self.resolve(outputs)
        model = self._model(tensors)
        values = model.predict_on_batch([inputs[tensor.name] for tensor in model.inputs])
        results = OrderedDict()
        for (name, tensor), value in zip(tensors.items(), values, strict=True):
            value = np.asarray(value)
            if value.dtype.kind == "V":  # bfloat16, of which numpy and matplotlib know nothing
                value = value.astype("float32")
            if getattr(tensor._keras_history.operation, "step", None) == NMS_STEP:
                value = value[value >= 0]
            results[name] = value
            log(name, value)
        return results

    def _model(self, tensors):
        key = tuple(map(id, tensors.values()))
        if key not in self._models:
            inputs = [tensor for tensor in self.model.inputs if tensor.name in IMAGE_INPUTS]
            try:
                self._models[key] = MaskRCNNModel(inputs, list(tensors.values()))
            except ValueError as error:
                raise ValueError(
                    f"run_graph gives a model nothing but images, and one of {list(tensors)} is computed from ground "
                    'truth too. Use a model of mode "inference", or look at tensors before the targets.'
                ) from error
        return self._models[key]
