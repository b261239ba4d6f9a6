"""Token shards and the data module that serves them to litGPT."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inheritune_lit.data.tokens import PackedTokens

__all__ = ["BEGINS", "TELL", "PackedTokens"]

TELL = "INHERITUNE_TELL"
"""The variable that has PackedTokens print BEGINS for a training's first two micro-batches"""
BEGINS = "Micro-batch {} begins"


def __getattr__(name: str) -> Any:
    """Imports PackedTokens when it is asked for: it needs litGPT, for which `prepare --help` must not wait."""
    if name == "PackedTokens":
        from inheritune_lit.data.tokens import PackedTokens

        return PackedTokens
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
