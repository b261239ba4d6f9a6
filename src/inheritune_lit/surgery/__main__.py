"""`python -m inheritune_lit.surgery`."""

from inheritune_lit.base.command_line import run
from inheritune_lit.surgery.command import surgery

run(surgery, "python -m inheritune_lit.surgery")
