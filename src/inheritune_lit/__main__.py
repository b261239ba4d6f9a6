"""The commands: `inheritune <command>` and `python -m inheritune_lit <command>`."""

import importlib
import io
import sys
from collections.abc import Sequence

from inheritune_lit.base.command_line import run

# One line a command: its name, where it lives, and what `inheritune --help` says of it.
COMMANDS = {
    "surgery": (
        "inheritune_lit.surgery.command:surgery",
        "write a shorter checkpoint with blocks of a reference checkpoint",
    ),
    "verify": ("inheritune_lit.verify:verify", "check a checkpoint folder against its receipt and its source"),
    "analyze": (
        "inheritune_lit.analyze:analyze",
        "which blocks a model can spare: losses without them, lazy attention",
    ),
    "choose": ("inheritune_lit.choose:choose", "which blocks to keep: a few choices, each trained for a short while"),
    "prepare": ("inheritune_lit.prepare.command:prepare", "turn a folder of text into token shards"),
    "data": ("inheritune_lit.data.inspect:COMMANDS", "inspect token shards: what is in them, and in what order"),
    "recipes": ("inheritune_lit.reproduce:RECIPES", "list, copy, validate and ship recipes"),
    "plan": ("inheritune_lit.plan:plan", "what a recipe will take: parameters, memory, time, disk"),
    "pretrain": ("inheritune_lit.pretrain.command:pretrain", "run a recipe: checked, resumed, watched to its end"),
    "grow": ("inheritune_lit.grow:grow", "Algorithm 2: add blocks until the loss is at par with the reference's"),
    "export": (
        "inheritune_lit.export.command:export",
        "write a Hugging Face folder of a checkpoint, reloaded and compared",
    ),
    "evaluate": ("inheritune_lit.evaluate.command:evaluate", "scores on lm-eval's tasks, and loss on held-out tokens"),
    "lock": (
        "inheritune_lit.reproduce:lock",
        "what a run was made from and how it went, for another lab to compare",
    ),
    "reproduce": ("inheritune_lit.reproduce:reproduce", "is a run made here the one that was locked, and if not, why?"),
    "report": ("inheritune_lit.report:report", "runs side by side and beside published numbers, as one page"),
    "demo": ("inheritune_lit.demo:demo", "the whole way on a real small model and real text, on a laptop"),
    "grow-demo": ("inheritune_lit.demo.grow_demo:grow_demo", "Algorithm 2 on a small GPT-2 and real text, on a laptop"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command named by the first argument; a command's module is imported only when it is asked for."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal can't show is no reason to end
        sys.stdout.reconfigure(errors="backslashreplace")
    command, *args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in ("-h", "--help"):
        print(_overview())
        return
    if command not in COMMANDS:
        sys.exit(f"inheritune: error: no command {command!r}. The commands are: {', '.join(COMMANDS)}.")
    module, function = COMMANDS[command][0].split(":")
    run(getattr(importlib.import_module(module), function), f"inheritune {command}", args)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: inheritune COMMAND [options]      (inheritune COMMAND --help says more)",
            "",
            "Small base language models out of big ones, trained with litGPT.",
            "",
            *lines,
            "",
            "Training is litGPT's own command, litgpt pretrain --config recipes/<name>.yaml; `pretrain` runs it.",
        ]
    )


if __name__ == "__main__":
    main()
