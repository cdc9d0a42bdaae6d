"""Turns the convolutions of an existing network into normalized ones."""

import copy

from torch import fx, nn

from .conv_norm import ConvNorm2d

__all__ = ["convert"]


def convert(model: nn.Module, convolution: str = "conv_norm") -> nn.Module:
    """A copy of a network whose pairs of convolution and BatchNorm are ``ConvNorm2d`` layers.

    In plain words: a convolution whose output goes to one BatchNorm and nowhere else is replaced,
    with its taps and bias, BatchNorm's weights and its mode, and an identity stands where
    BatchNorm was. The filter starts as a unit impulse, and BatchNorm's running statistics start
    afresh, since its input is another: train, or run some batches in training mode, before
    evaluating. Convolutions without such a BatchNorm stay as they are, and so do layers that the
    network uses twice, that have hooks, or whose taps are computed from other tensors.

    Arguments:
        model: a network that ``torch.fx`` can trace.
        convolution: "conv_norm".

    Raises:
        TypeError: what is no module.
        ValueError: another convolution, a network that cannot be copied or traced, or one without
            a pair.

    Example:
        >>> from torchvision.models import resnet18
        >>> converted = convert(resnet18())
        >>> kinds = [type(part).__name__ for part in converted.modules()]
        >>> kinds.count("ConvNorm2d"), kinds.count("Conv2d"), converted.layer1[0].bn1
        (20, 0, Identity())
    """
    if convolution != "conv_norm":
        raise ValueError(f"convolution is {convolution!r}; networks are converted to 'conv_norm'")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, not a torch.nn.Module")
    copied = _copied(model)
    pairs = _pairs(copied)
    if not pairs:
        raise ValueError(
            f"{type(model).__name__} has no convolution whose output goes to a BatchNorm2d alone"
        )
    for first, second in pairs:
        made = _converted(copied.get_submodule(first), copied.get_submodule(second))
        copied.set_submodule(first, made)
        copied.set_submodule(second, nn.Identity())
    return copied


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, ConvNorm2d) or super().is_leaf_module(module, name)


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        name, reason = type(model).__name__, str(error).partition("\n")[0]
        raise ValueError(
            f"{name} cannot be copied, perhaps as the taps of a convolution are computed by a "
            f"hook: {reason}"
        ) from error


def _plain(layer: nn.Module, kind: type) -> bool:
    """Whether a layer is just of this kind: no hooks, and parameters of its own."""
    hooks = layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks
    return type(layer) is kind and not any(hooks) and "weight" in layer._parameters


def _pairs(model: nn.Module) -> list[tuple[str, str]]:
    """Names of convolutions and of the BatchNorm layers that alone read them."""
    try:
        nodes = _Tracer().trace(model).nodes
    except Exception as error:  # whatever a network's own code raises on a proxy
        name, reason = type(model).__name__, str(error).partition("\n")[0]
        raise ValueError(f"{name} cannot be traced by torch.fx: {reason}") from error
    called = [node.target for node in nodes if node.op == "call_module"]
    pairs = []
    for node in nodes:
        if node.op != "call_module" or len(node.users) != 1:
            continue
        [after] = node.users
        if after.op != "call_module":
            continue
        names = node.target, after.target
        first, second = map(model.get_submodule, names)
        plain = _plain(first, nn.Conv2d) and _plain(second, nn.BatchNorm2d)
        if plain and all(called.count(name) == 1 for name in names):
            pairs.append(names)
    return pairs


def _converted(convolution: nn.Conv2d, batch_norm: nn.BatchNorm2d) -> ConvNorm2d:
    layer = ConvNorm2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,
        convolution.stride,
        convolution.padding,
        convolution.dilation,
        convolution.groups,
        convolution.bias is not None,
        convolution.padding_mode,
        convolution.weight.device,
        convolution.weight.dtype,
    )
    layer.weight = convolution.weight
    if convolution.bias is not None:
        layer.bias = convolution.bias
    layer.training, layer.batch_norm = convolution.training, batch_norm
    batch_norm.reset_running_stats()
    return layer
