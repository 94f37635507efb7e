"""What a checkpoint holds of an objective and its optimiser: named tensors, and back again."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from swav.run_folder import layout

EXTRA = "_extra_state"
"""Marks state whose shape may change, such as a queue that fills: its module checks it."""


class CheckpointError(RuntimeError):
    """A checkpoint is damaged or does not fit the run."""


def flatten(
    objective_state: Mapping[str, Any],
    optimizer: torch.optim.Optimizer,
    named_parameters: Iterable[tuple[str, Tensor]],
    scaler: GradScaler | None = None,
) -> dict[str, Tensor]:
    """Return a copy on the CPU of an objective's ``state_dict()`` and its optimiser's state.

    Keys are ``model/<key>`` and ``optimizer/<parameter>/<slot>``, and ``scaler/<name>`` if there
    is a loss scaler; nested dictionaries and lists
    of extra state add parts, numbers become 0-d tensors. Parameters that were never updated have
    no state. The optimiser's options are not in it: they follow from the configuration.
    """
    names = {id(parameter): name for name, parameter in named_parameters}
    state = dict(_leaves("model", objective_state))
    state |= _scaler_leaves(scaler)
    state[_class_key(optimizer)] = torch.tensor(True)
    for parameter, slots in optimizer.state.items():
        state |= _leaves(f"optimizer/{names[id(parameter)]}", slots)
    # safetensors refuses tensors that share memory or are not contiguous (channels_last)
    return {
        key: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for key, value in state.items()
    }


def restore(
    tensors: Mapping[str, Tensor],
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: GradScaler | None = None,
) -> None:
    """Put back, bit for bit, what ``flatten`` took from objective, optimiser and loss scaler.

    All are freshly built with the configuration of the run; nothing changes if they do not fit.

    Raises:
        CheckpointError: naming every key that is missing, unexpected or of another shape or type.
    """
    template = objective.state_dict()
    names = {id(parameter): name for name, parameter in objective.named_parameters()}
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    by_name = _slots(tensors)
    saved = [by_name.get(names[id(parameter)], {}) for parameter in trained]
    every_slot = {slot for slots in saved for slot in slots}
    expected = dict(_leaves("model", template)) | _scaler_leaves(scaler)
    expected[_class_key(optimizer)] = torch.tensor(True)
    for parameter, slots in zip(trained, saved, strict=True):
        for slot in every_slot if slots else ():
            value = slots.get(slot, parameter)
            fitting = value if value.ndim == 0 else parameter.to(value.dtype)
            expected[f"optimizer/{names[id(parameter)]}/{slot}"] = fitting
    _check_fit(tensors, expected)
    objective.load_state_dict(_rebuilt(template, "model", tensors))
    state = {
        number: {slot: _laid_out_as(parameter, value) for slot, value in slots.items()}
        for number, (parameter, slots) in enumerate(zip(trained, saved, strict=True))
        if slots
    }
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    if scaler is not None:
        scaler.load_state_dict(_rebuilt(scaler.state_dict(), "scaler", tensors))


def restore_weights(tensors: Mapping[str, Tensor], objective: nn.Module) -> None:
    """Put back the objective alone, to use it rather than to train on.

    Raises:
        CheckpointError: naming every key that is missing, unexpected or of another shape or type.
    """
    template = objective.state_dict()
    saved = {key: value for key, value in tensors.items() if key.startswith("model/")}
    _check_fit(saved, dict(_leaves("model", template)))
    objective.load_state_dict(_rebuilt(template, "model", saved))


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in a nested state with their path; numbers become 0-d tensors."""
    if isinstance(value, Tensor):
        yield key, value
    elif isinstance(value, float):
        yield key, torch.tensor(value, dtype=torch.float64)  # as Python has it, bit for bit
    elif isinstance(value, int):  # bool is one too, and keeps its type
        yield key, torch.tensor(value)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(f"{key}/{name}", inner)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _leaves(f"{key}/{index}", inner)
    else:
        assert value is None, f"{key}: state of {type(value)} cannot be saved"


def _scaler_leaves(scaler: GradScaler | None) -> dict[str, Tensor]:
    return {} if scaler is None else dict(_leaves("scaler", scaler.state_dict()))


def _rebuilt(template: Any, key: str, tensors: Mapping[str, Tensor]) -> Any:
    """Return ``template`` with the numbers of ``tensors``: what ``_leaves`` took apart."""
    if isinstance(template, Tensor):
        return tensors[key].to(template.device, copy=True)
    if isinstance(template, (int, float)):
        return type(template)(tensors[key].item())
    if isinstance(template, Mapping):
        return {name: _rebuilt(value, f"{key}/{name}", tensors) for name, value in template.items()}
    if isinstance(template, (list, tuple)):
        return type(template)(
            _rebuilt(value, f"{key}/{index}", tensors) for index, value in enumerate(template)
        )
    return None


def _class_key(optimizer: torch.optim.Optimizer) -> str:
    """Return a key that only the same kind of optimiser expects."""
    return f"optimizer_class/{type(optimizer).__name__}"


def _slots(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return the optimiser's state of each parameter name."""
    slots: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            name, _, slot = key.removeprefix("optimizer/").rpartition("/")
            slots.setdefault(name, {})[slot] = value
    return slots


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """Return a copy of ``value`` with the strides of its parameter (0-d state stays as it is)."""
    if value.shape != parameter.shape:
        return value.clone()
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _check_fit(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    other = [
        f"{key} ({_kind(tensors[key])} instead of {_kind(value)})"
        for key, value in expected.items()
        if key in tensors and EXTRA not in key and _kind(tensors[key]) != _kind(value)
    ]
    problems = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - expected.keys()),
        "of another kind": other,
    }
    if any(problems.values()):
        raise CheckpointError(
            f"the checkpoint does not fit this run; continue it with its own {layout.CONFIG}.\n"
            + "\n".join(f"  {what}: {', '.join(keys)}" for what, keys in problems.items() if keys)
        )


def _kind(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
