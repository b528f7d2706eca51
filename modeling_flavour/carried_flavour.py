"""Modules that an adapter brings along whole, whatever its base has in their place."""

from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

# Name of the one entry of such a module in an adapter; torch, transformers and peft know it.
STATE = "_extra_state"
RELIANCE = "reliance"
COPIES = "modules_to_save."  # where peft keeps the copies of its adapters


def unpack(state: Tensor) -> dict[str, Tensor]:
    """Return what a module holds by the bytes of it."""
    return load(bytes(state.cpu().numpy()))


def unpacked(states: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the buffers of modules in an ordinary model.

    Args:
        states: what an adapter has of them, by name; of `reliance` the config of that model states all.
    """
    found: dict[str, Tensor] = {}
    for name, state in states.items():
        module = name.rpartition(".")[0]
        if module != RELIANCE:
            found |= {f"{module}.{each}": value for each, value in unpack(state).items()}
    return found


class Carried(nn.Module):
    """A module without parameters that `modules_to_save` of peft can carry, with other contents than in the base.

    peft copies the module of the base and fills the copy by the names and shapes that it finds there. So in adapters
    such a module has a single entry that is always there: all that it holds, as the bytes of a safetensors file. In an
    ordinary model it has its buffers, if any.
    """

    def held(self) -> dict[str, Tensor]:
        """Return all that the module holds, by name."""
        raise NotImplementedError

    def hold(self, held: dict[str, Tensor]) -> None:
        """Take what another module of this class holds, in place of what was here."""
        raise NotImplementedError

    def get_extra_state(self) -> Tensor:
        """Return what the module holds as bytes, `(length,)` uint8."""
        packed = save({name: value.detach().cpu().contiguous() for name, value in self.held().items()})
        return torch.frombuffer(bytearray(packed), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take what `get_extra_state` of another module gave."""
        self.hold(unpack(state))

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        # Alone, or as the copy of an adapter.
        if not prefix or COPIES in prefix:
            destination[prefix + STATE] = self.get_extra_state()
            return
        for name, value in self._buffers.items():
            if value is not None:
                destination[prefix + name] = value if keep_vars else value.detach()

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
        if prefix + STATE in state_dict:
            self.set_extra_state(state_dict[prefix + STATE])
            return
        before = len(missing)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)
        missing[before:] = [name for name in missing[before:] if name != prefix + STATE]


class Reliance(Carried):
    """Fields of the config that an adapter has learned anew; empty in a model without an adapter, whose config rules.

    peft leaves the config of the base as it is. `save_pretrained` of a merged model writes these into it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, float | None] | None = None

    def held(self) -> dict[str, Tensor]:
        """Return each field as a number, NaN for `None`."""
        fields = self.fields or {}
        return {
            name: torch.tensor(torch.nan if value is None else value, dtype=torch.float64)
            for name, value in fields.items()
        }

    def hold(self, held: dict[str, Tensor]) -> None:
        """Take fields from `held` of another one."""
        self.fields = {name: None if bool(value.isnan()) else float(value) for name, value in held.items()} or None

    def value(self, name: str, stated: Any) -> Any:
        """Return a field, `stated` by the config where no adapter brought it."""
        return stated if self.fields is None else self.fields.get(name, stated)
