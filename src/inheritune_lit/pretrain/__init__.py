"""`inheritune pretrain`: one recipe, checked, run as `litgpt pretrain`, resumed and watched to its end."""

from inheritune_lit.pretrain.launch import train
from inheritune_lit.pretrain.options import Options
from inheritune_lit.pretrain.watch import Progress

__all__ = ["Options", "Progress", "train"]
