"""Activation functions and other element-wise operations: labels pass unchanged."""

from __future__ import annotations

from typing import Any

from saikei.rules.base import CallView, Rule, no_macs, pinned_flow
from saikei.rules.labels import Flow, Labels, LabelSource, Pin, Vector, pin_all

_FUNCTIONS = (
    "celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu "
    "linear log_sigmoid mish relu relu6 selu sigmoid silu soft_shrink softplus softsign "
    "sparse_plus sparse_sigmoid squareplus swish tanh tanh_shrink threshold"
)
ELEMENTWISE_FUNCTIONS = frozenset(_FUNCTIONS.split())
# Of KerasHub, by the names under which it registers them.
REGISTERED_FUNCTIONS = frozenset({"keras_hub>gelu_approximate", "keras_nlp>gelu_approximate"})
# What the name of a function that is not Keras's begins with in a config that was read: whether it
# is known to treat each number on its own.
ELEMENTWISE, OWN = "elementwise>", "own>"
_OPERATION_NAMES = (
    "Relu ReLU Relu6 Sigmoid Softplus Softsign Silu LogSigmoid LeakyRelu HardSigmoid HardSilu Elu "
    "Selu Gelu Celu HardTanh HardShrink SoftShrink TanhShrink Squareplus SparseSigmoid SparsePlus "
    "Threshold Tanh Sinh Cosh Sin Cos Tan Arctan Exp Exp2 Expm1 Log Log1p Log2 Sqrt Rsqrt Square "
    "Cbrt Absolute Abs Negative Sign Erf Reciprocal Clip Cast SaturateCast StopGradient Copy "
    "ConvertToTensor NanToNum Round Floor Ceil Trunc OnesLike ZerosLike Isnan Isinf Isfinite "
    "LogicalNot Sinc Fabs Arcsin Arccos Arcsinh Arccosh Arctanh Log10 Erfc Erfinv Deg2rad Rad2deg "
    "FullLike"
)
_OPERATIONS = frozenset(_OPERATION_NAMES.split())
ELEMENTWISE_LAYERS = frozenset({"ReLU", "LeakyReLU", "ELU", "Identity"})


def mixes_channels(activation: Any) -> str | None:
    """Why a fused `activation=` argument needs all channels together; `None` if it does not.

    Args:
        activation: The config entry: a name, `None`, or a serialised function or layer.
    """
    name = activation
    if isinstance(activation, dict):
        name = activation.get("config")
        cls, module = activation.get("class_name"), str(activation.get("module"))
        if cls in ELEMENTWISE_LAYERS or (module.startswith("keras.") and cls in _OPERATIONS):
            return None
        if isinstance(name, dict) or activation.get("registered_name"):
            name = activation.get("registered_name") or activation.get("class_name")
        if name == "function" and isinstance(activation.get("config"), str):
            name = activation["config"]
            if name in REGISTERED_FUNCTIONS or name.startswith(ELEMENTWISE):
                return None
            name = name.rsplit(">", 1)[-1]
    if name is None or name in ELEMENTWISE_FUNCTIONS:
        return None
    return f"its activation '{name}' is not known to act on each channel alone"


def activation_pins(call: CallView, vector: Vector) -> tuple[Pin, ...]:
    """Pins for a layer's output labels where its fused activation mixes channels."""
    reason = mixes_channels(call.config.get("activation"))
    return () if reason is None else (Pin(vector, reason),)


def elementwise(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """One tensor in, one of the same shape out, each element on its own."""
    if len(inputs) != 1 or len(call.outputs) != 1 or call.outputs[0] != call.inputs[0]:
        return pinned_flow(call, inputs, "used in a way that its rule does not know")
    return Flow(outputs=(inputs[0],))


def _activation_layer(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    reason = mixes_channels(call.config.get("activation"))
    if reason is not None:
        return pinned_flow(call, inputs, reason)
    return elementwise(call, inputs, source)


def _prelu(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    # alpha has the input's shape without batch, with size 1 on shared axes; an axis of size 1
    # is broadcast, so it carries no labels.
    alpha: list[Vector | None] = []
    for size, vector in zip(call.weights["alpha"], inputs[0][1:], strict=True):
        alpha.append(vector if vector is not None and size == len(vector) else None)
    return Flow(outputs=(inputs[0],), weights={"alpha": tuple(alpha)})


def _masking(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """A step is masked where all its values are the mask value, as silent ones are for 0."""
    if call.config.get("mask_value", 0.0) != 0:
        return pinned_flow(call, inputs, "it compares all channels with its mask value")
    return elementwise(call, inputs, source)


def _softmax(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """Softmax normalises over its axes: those labels are pinned, others pass."""
    axis = call.config.get("axis", -1)
    axes = axis if isinstance(axis, (list, tuple)) else (axis,)
    rank = len(call.inputs[0])
    if None in axes:
        return pinned_flow(call, inputs, "it normalises over all axes")
    normalised = {a % rank for a in axes}
    pins = pin_all(inputs[1:], "a mask of a softmax") + tuple(
        Pin(vector, f"'{call.operation}' normalises over this axis")
        for position, vector in enumerate(inputs[0])
        if vector is not None and position in normalised
    )
    outputs = tuple(None if p in normalised else v for p, v in enumerate(inputs[0]))
    return Flow(outputs=(outputs,), pins=pins)


_LAYERS = (
    "ReLU LeakyReLU ELU Identity Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D "
    "GaussianDropout GaussianNoise AlphaDropout ActivityRegularization StochasticDepth"
)

RULES: dict[str, Rule] = {
    **{kind: Rule(elementwise, no_macs) for kind in _LAYERS.split()},
    **{f"ops.{name}": Rule(elementwise, no_macs) for name in _OPERATIONS},
    "Activation": Rule(_activation_layer, no_macs),
    "Masking": Rule(_masking, no_macs),
    "PReLU": Rule(_prelu, no_macs),
    "Softmax": Rule(_softmax, no_macs),
    "ops.Softmax": Rule(_softmax, no_macs),
    "ops.LogSoftmax": Rule(_softmax, no_macs),
    "ops.Sparsemax": Rule(_softmax, no_macs),
}
