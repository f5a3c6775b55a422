"""Weights that do not lie where they are used: models spread over devices, with parts on the CPU or on disk.

accelerate brings such a module's weights to the device that runs it just before, and forgets them just after; in
between the module holds empty tensors (device "meta"). `device_of` says where a module runs, `stored` reads a weight
wherever it lies, and `hold` keeps a module's weights on its device from now on: what is edited must be in memory.
"""

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from accelerate.hooks import AlignDevicesHook, SequentialHook
from accelerate.utils import named_module_tensors, set_module_tensor_to_device
from torch import Tensor, nn

from errata.errors import ModelError


def device_of(module: nn.Module, parameter: str = "weight") -> torch.device:
    """Where the module runs, whether or not its weight is there now."""
    tensor = cast(Tensor, getattr(module, parameter))
    hook = _hook_of(module)
    if tensor.device.type != "meta" or hook is None or hook.execution_device is None:
        return tensor.device
    device = hook.execution_device
    return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)


def stored(module: nn.Module, parameter: str = "weight") -> Tensor:
    """The parameter's numbers wherever they lie, not to be changed.

    Raises:
        ModelError: they are nowhere.
    """
    tensor = cast(Tensor, getattr(module, parameter))
    if tensor.device.type != "meta":
        return tensor
    hook = _hook_of(module)
    weights = None if hook is None else cast("Mapping[str, Tensor] | None", hook.weights_map)
    if weights is None:
        raise ModelError(
            f"The {parameter} of a {type(module).__name__} is not in memory and nothing tells where it lies. Load the "
            "model with device_map, or with more memory."
        )
    return weights[parameter]


def hold(module: nn.Module) -> None:
    """Keep the module's weights on the device that runs it from now on, so that they can be changed in place.

    Raises:
        ModelError: they are nowhere.
    """
    hook = _hook_of(module)
    if hook is None or not hook.offload:
        return
    names = [name for name, _ in cast("Iterable[tuple[str, Tensor]]", named_module_tensors(module))]
    for name in names:
        tensor = cast(Tensor, getattr(module, name))
        if tensor.device.type == "meta":
            # A copy: what lies on the CPU or on disk stays the model's as it was.
            value = stored(module, name).to(device=device_of(module, name), dtype=tensor.dtype, copy=True)
            set_module_tensor_to_device(module, name, value.device, value=value)
    hook.offload = False


def _hook_of(module: nn.Module) -> AlignDevicesHook | None:
    """What brings the module's own weights, if anything does."""
    hook = cast(object, getattr(module, "_hf_hook", None))
    hooks = cast("tuple[object, ...]", hook.hooks if isinstance(hook, SequentialHook) else (hook,))
    return next((one for one in hooks if isinstance(one, AlignDevicesHook)), None)
