"""Token shards and the data module that serves them to litGPT."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inheritune_lit.data.distilled import DistilledTokens
    from inheritune_lit.data.tokens import PackedTokens

__all__ = ["BEGINS", "TELL", "DistilledTokens", "PackedTokens"]

TELL = "INHERITUNE_TELL"
"""The variable that has PackedTokens print BEGINS for a training's first two micro-batches"""
BEGINS = "Micro-batch {} begins"
MODULES = {"PackedTokens": "tokens", "DistilledTokens": "distilled"}
"""litGPT's data modules of ours, and the file of each"""


def __getattr__(name: str) -> Any:
    """Imports a data module when it is asked for: it needs litGPT, for which `prepare --help` must not wait."""
    if name in MODULES:
        return getattr(import_module(f"inheritune_lit.data.{MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
