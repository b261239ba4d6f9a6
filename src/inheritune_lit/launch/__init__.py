"""`inheritune pretrain`: one recipe, checked, run as `litgpt pretrain`, resumed and watched to its end."""

from inheritune_lit.launch.attempt import Options
from inheritune_lit.launch.training import train
from inheritune_lit.launch.watch import Progress, Waiting

__all__ = ["Options", "Progress", "Waiting", "train"]
