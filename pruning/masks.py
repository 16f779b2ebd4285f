"""Masks: maskable name -> boolean tensor (True = kept). They are stored outside the model and enforced by ``attach``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pruning.checksummed import read_tensors, write_tensors
from pruning.errors import PruningError
from pruning.maskable import Maskable


class Masks(Mapping[str, Tensor]):
    """An immutable set of masks. Each tensor is bool, on the CPU, of its maskable's shape."""

    def __init__(self, tensors: Mapping[str, Tensor], budgets: Mapping[str, str]):
        if tensors.keys() != budgets.keys():
            raise PruningError("masks and budgets name different tensors")
        for name, mask in tensors.items():
            if mask.dtype != torch.bool:
                raise PruningError(f"mask {name} is {mask.dtype}, not bool")
        self._tensors = {name: mask.cpu().contiguous() for name, mask in tensors.items()}
        self.budgets = dict(budgets)
        self._digest: str | None = None

    @classmethod
    def ones(cls, maskables: list[Maskable]) -> Masks:
        """Return masks that keep every entry."""
        return cls({m.name: torch.ones(m.shape, dtype=torch.bool) for m in maskables}, {m.name: m.budget for m in maskables})

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Masks) and self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    def replace(self, tensors: Mapping[str, Tensor]) -> Masks:
        """Return these masks with some tensors replaced."""
        return Masks({**self._tensors, **tensors}, self.budgets)

    def restrict_to(self, model: nn.Module) -> Masks:
        """Return the masks of parameters whose shape in ``model`` is unchanged: the rest of a shrunk network needs none."""
        shapes = {name: p.shape for name, p in model.named_parameters()}
        left = {name: mask for name, mask in self.items() if shapes.get(name) == mask.shape}
        return Masks(left, {name: self.budgets[name] for name in left})

    def names(self, budget: str | None = None) -> list[str]:
        """Return the names of the tensors of one budget, or of all."""
        return [name for name in self if budget in (None, self.budgets[name])]

    def kept(self, budget: str | None = None) -> int:
        """Return the number of entries kept."""
        return sum(int(self[name].sum()) for name in self.names(budget))

    def total(self, budget: str | None = None) -> int:
        """Return the number of entries, kept or pruned."""
        return sum(self[name].numel() for name in self.names(budget))

    def density(self, budget: str | None = None) -> float:
        """Return kept / total."""
        return self.kept(budget) / max(1, self.total(budget))

    def densities(self) -> dict[str, float]:
        """Return the density of every tensor by name."""
        return {name: float(mask.sum()) / max(1, mask.numel()) for name, mask in self.items()}

    def collapsed(self) -> list[str]:
        """Return the names of tensors that keep no entry (layer collapse)."""
        return [name for name, mask in self.items() if mask.numel() and not bool(mask.any())]

    def distance(self, other: Masks, budget: str | None = None) -> float:
        """Return the normalised Hamming distance, in [0, 1]: the share of entries on which the two masks differ."""
        self.check_like(other)
        differing = sum(int((self[name] ^ other[name]).sum()) for name in self.names(budget))
        return differing / max(1, self.total(budget))

    def overlap(self, other: Masks, budget: str | None = None) -> float:
        """Return intersection over union of the kept entries, in [0, 1]."""
        self.check_like(other)
        names = self.names(budget)
        union = sum(int((self[n] | other[n]).sum()) for n in names)
        return sum(int((self[n] & other[n]).sum()) for n in names) / max(1, union)

    def check_like(self, other: Mapping[str, Tensor]) -> None:
        """Raise, naming the first difference, unless ``other`` has the same names and shapes."""
        for name in sorted(self.keys() ^ other.keys()):
            raise PruningError(f"mask {name} is on one side only: the masks are of different models")
        for name, mask in self.items():
            if mask.shape != other[name].shape:
                raise PruningError(
                    f"mask {name} has shape {tuple(mask.shape)} on one side and {tuple(other[name].shape)} on the other"
                )

    def digest(self) -> str:
        """Return the sha256 over names, shapes, budgets and bits: equal for equal masks."""
        if self._digest is None:
            sha = hashlib.sha256()
            for name in sorted(self):
                mask = self[name]
                sha.update(json.dumps([name, self.budgets[name], list(mask.shape)]).encode())
                sha.update(_pack(mask).tobytes())
            self._digest = sha.hexdigest()
        return self._digest

    def save(self, path: str | Path) -> None:
        """Write a sealed safetensors file: one bit an entry, shapes and budgets in its header. Atomic."""
        header = {name: json.dumps({"shape": list(mask.shape), "budget": self.budgets[name]}) for name, mask in self.items()}
        write_tensors(Path(path), {name: torch.from_numpy(_pack(mask)) for name, mask in self.items()}, header)

    @classmethod
    def load(cls, path: str | Path, digest: str | None = None) -> Masks:
        """Read what ``save`` wrote. ``digest``: that of the masks which must be there; files of the first releases, which carry
        no seal, are read by it alone."""
        try:
            packed, facts = read_tensors(Path(path), sealed=digest is None)
            header = {name: json.loads(text) for name, text in facts.items()}
            tensors = {name: _unpack(packed.pop(name).numpy(), about["shape"]) for name, about in header.items()}
            masks = cls(tensors, {name: about["budget"] for name, about in header.items()})
            if packed:
                raise ValueError("it does not say what its tensors mask, as those that `bench` writes do")
        except FileNotFoundError:
            raise PruningError(f"no mask file at {path}") from None
        except Exception as error:
            raise PruningError(
                f"{path} is not a readable mask file ({error}): name the record beside it, or delete both and run "
                "its command again"
            ) from None
        if digest not in (None, masks.digest()):
            raise PruningError(f"{path} does not hold the masks of the record beside it: delete both and run its command again")
        return masks


def _pack(mask: Tensor) -> NDArray[np.uint8]:
    return np.packbits(mask.numpy().reshape(-1))


def _unpack(bits: NDArray[np.uint8], shape: list[int]) -> Tensor:
    size = int(np.prod(shape, dtype=np.int64))
    if bits.size != -(-size // 8):
        raise ValueError(f"{bits.size} bytes of bits for {size} entries")
    return torch.from_numpy(np.unpackbits(bits, count=size).astype(bool)).reshape(shape)


KEEPS_ZEROS = frozenset(getattr(torch.optim, name) for name in ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adadelta"))
"""Optimizers that leave an entry and its state at 0 as long as its gradient is 0, whatever momentum and weight decay are."""


class Attachment:
    """Masks in force on a model and its optimizer; see ``attach``."""

    def __init__(self, masks: Masks, model: nn.Module, optimizer: torch.optim.Optimizer | None):
        parameters = dict(model.named_parameters())
        for name in masks:
            if name not in parameters:
                raise PruningError(f"the model has no parameter {name}: the masks are of another model")
            if parameters[name].shape != masks[name].shape:
                raise PruningError(
                    f"parameter {name} has shape {tuple(parameters[name].shape)} but its mask "
                    f"{tuple(masks[name].shape)}: the masks are of another model"
                )
        pruned = [name for name in masks if not bool(masks[name].all())]
        self._parameters = [parameters[name] for name in pruned]
        # empty_like keeps the parameter's memory format, so that the multiplications below stay on their fast path; factors of
        # the parameter's own type are faster than booleans
        self._factors = [torch.empty_like(parameters[n], requires_grad=False).copy_(masks[n]) for n in pruned]
        self._optimizer = optimizer
        self._masked: list[tuple[int, int]] | None = None  # the gradients when they were masked, as ``_versions`` has it
        self._clean: list[tuple[int, int]] | None = None  # what the last step left, every pruned entry of it 0
        self._hooks: list[RemovableHandle] = []
        if optimizer and pruned:
            self._hooks.append(optimizer.register_step_pre_hook(self._before_step))
            self._hooks.append(optimizer.register_step_post_hook(lambda *_: self._after_step()))
        self.enforce()

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Zero the gradients of pruned entries. Every step begins with it; call it before clipping, or they inflate the norm."""
        pairs = [(p.grad, f) for p, f in zip(self._parameters, self._factors, strict=True) if p.grad is not None]
        if pairs:
            torch._foreach_mul_([g for g, _ in pairs], [f for _, f in pairs])
        self._masked = _versions(g for g, _ in pairs)

    @torch.no_grad()
    def enforce(self) -> None:
        """Zero pruned entries of the parameters and of every same-shaped optimizer state."""
        pairs = list(self._enforced())
        if pairs:
            torch._foreach_mul_([value for value, _ in pairs], [factor for _, factor in pairs])

    def detach(self) -> None:
        """Stop enforcing the masks; pruned entries stay 0."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _enforced(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield parameters and states with their factors."""
        for parameter, factor in zip(self._parameters, self._factors, strict=True):
            yield parameter, factor
            if self._optimizer is not None:
                for value in self._optimizer.state.get(parameter, {}).values():
                    if torch.is_tensor(value) and value.shape == parameter.shape and value.ndim:
                        yield value, factor

    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if len(args) > 1 or kwargs.get("closure"):  # the step computes its gradients itself
            self._clean = None
            return
        if self._masked != _versions(p.grad for p in self._parameters if p.grad is not None):  # clipped, or added to
            self.mask_gradients()
        if self._clean != _versions(value for value, _ in self._enforced()):  # somebody wrote to them since
            self._clean = None

    def _after_step(self) -> None:
        """Zero what the step may have moved. Multiplications take time in large layers, so that none is done in vain."""
        if self._clean is None or type(self._optimizer) not in KEEPS_ZEROS:
            self.enforce()
        self._clean, self._masked = _versions(value for value, _ in self._enforced()), None


def _versions(tensors: Iterable[Tensor]) -> list[tuple[int, int]]:
    """Return where tensors lie, and how often each was written to, but by the optimizer's fused kernels."""
    return [(tensor.data_ptr(), tensor._version) for tensor in tensors]


def attach(masks: Masks, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Attachment:
    """Enforce ``masks``: multiply the parameters now, and the gradients at every step of the optimizer.

    Pruned entries and their optimizer state are exactly 0 after every step, under any optimizer: where the step may have moved
    them, or somebody wrote to the parameters since the last, they are multiplied as well. What is written to a parameter's
    ``.data`` is not seen; call ``enforce`` after it. No module is wrapped and nothing is added to the model: ``state_dict``,
    ``deepcopy``, tied weights and ``torch.compile`` see a plain network. Masks that keep everything cost nothing.
    """
    return Attachment(masks, model, optimizer)
