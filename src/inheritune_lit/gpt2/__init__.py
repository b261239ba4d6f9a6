"""GPT-2 for litGPT: learned positions, LayerNorm with or without bias, tanh GELU, a head tied to the token embedding.

A Config is a GPT-2's if its `hf_config` says `model_type: gpt2`; options that litGPT's Config has no field for stand
there too (see `options.py`). Every other Config is litGPT's own GPT. Importing this package imports neither torch nor
litGPT.
"""

from typing import TYPE_CHECKING, Any

from inheritune_lit.gpt2.hugging_face import from_hugging_face, hugging_face_config, to_hugging_face
from inheritune_lit.gpt2.options import is_gpt2, layer_indices, slice_options

if TYPE_CHECKING:
    from litgpt.config import Config
    from litgpt.model import GPT

__all__ = [
    "build",
    "build_empty",
    "from_hugging_face",
    "hugging_face_config",
    "is_gpt2",
    "layer_indices",
    "model_class",
    "slice_options",
    "to_hugging_face",
]


def model_class(config: "Config") -> "type[GPT]":
    """The class of a Config's model: ours for a GPT-2, litGPT's GPT for everything else."""
    if is_gpt2(config):
        from inheritune_lit.gpt2.model import GPT2

        return GPT2
    from litgpt.model import GPT

    return GPT


def build(config: "Config") -> "GPT":
    """The model of a Config, of the right class."""
    return model_class(config)(config)


def build_empty(config: "Config") -> "GPT":
    """The names and shapes of a Config's model: its parameters on the meta device, and no positions, so not to be run.

    What computes on that device, be it random numbers or positions, imports torch.compile's machinery, a second's work.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class NotInitialized(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if getattr(func, "__module__", None) == "torch.nn.init":
                return kwargs["tensor"] if "tensor" in kwargs else args[0]
            return func(*args, **kwargs)

    class Empty(model_class(config)):  # type: ignore[misc]
        def rope_cache(self, device: Any = None) -> Any:
            return torch.empty(0), torch.empty(0)

    with torch.device("meta"), NotInitialized():
        return Empty(config)
