"""Where a tensor of a target comes from, and how a receipt says so.

Importing this module imports neither torch nor litGPT.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.folders import natural
from inheritune_lit.checkpoint.layers import BLOCK

Giver = Literal["source", "target", "random"]
"""Who gives a tensor: the source, the trained target that grows, or litGPT's initialisation"""
Cut = tuple[tuple[tuple[int, int], ...], ...]
"""For each axis of a tensor, the ranges start … stop - 1 that are kept of it, one after the other"""


@dataclass(frozen=True)
class Origin:
    """Where a tensor of the target comes from."""

    giver: Giver
    name: str
    """Its name there"""
    cut: Cut = ()
    """What is kept of it; () is all of it"""

    @property
    def label(self) -> str:
        """`source 3` for a tensor of the source's block 3, `source` for one that is in no block."""
        if self.giver == "random" or not self.name.startswith(BLOCK):
            return self.giver
        return f"{self.giver} {block_of(self.name)}"


def block_of(name: str) -> int:
    """Block number of a block's tensor: transformer.h.3.attn.qkv.weight → 3"""
    return int(name.removeprefix(BLOCK).split(".", 1)[0])


def module_of(name: str) -> str:
    """attn, mlp or norm, for a block's tensor. A norm inside of attention (of queries, of keys) is a norm."""
    modules = name.removeprefix(BLOCK).split(".")[1:]
    return "norm" if any("norm" in module for module in modules) else modules[0]


Summary = dict[str, str | dict[str, str]]
"""A receipt's origins: module → label, in a block part → label where the parts differ"""


def summary(origins: Mapping[str, Origin]) -> Summary:
    """What a receipt says of the origins: {"transformer.h.0": "source 3", "lm_head": "source", …}."""
    modules: dict[str, dict[str, str]] = {}
    for name in sorted(origins, key=natural):  # a file of weights may hold block 10 before block 2
        module, part = _place(name)
        modules.setdefault(module, {})[part] = origins[name].label
    return {
        module: next(iter(parts.values())) if len(set(parts.values())) == 1 else parts
        for module, parts in modules.items()
    }


def recorded(summary: Summary, names: Iterable[str]) -> dict[str, Origin]:
    """The origins, uncut, of tensors of these names as a receipt has them: the inverse of `summary`.

    Raises:
        InheritError: the receipt says nothing of a tensor.
    """
    found = {}
    for name in names:
        module, part = _place(name)
        parts = summary.get(module, {})
        label = parts if isinstance(parts, str) else parts.get(part)
        match = re.fullmatch(r"(source|target|random)(?: (\d+))?", label or "")
        if match is None:
            raise InheritError(f"The receipt does not say where {name} comes from: it has {label!r} for {module}.")
        giver = cast(Giver, match[1])
        found[name] = Origin(giver, name if match[2] is None else name.replace(module, f"{BLOCK}{match[2]}", 1))
    return found


def _place(name: str) -> tuple[str, str]:
    """transformer.h.3.attn.qkv.weight → (transformer.h.3, attn); lm_head.weight → (lm_head, "")"""
    if name.startswith(BLOCK):
        return f"{BLOCK}{block_of(name)}", module_of(name)
    return name.rsplit(".", 1)[0], ""
