"""`inheritune pretrain`: one recipe, checked, run as `litgpt pretrain`, resumed and watched to its end."""

from inheritune_lit.pretrain.launch import Options
from inheritune_lit.pretrain.training import train
from inheritune_lit.pretrain.watch import Progress, Waiting

__all__ = ["Options", "Progress", "Waiting", "train"]
