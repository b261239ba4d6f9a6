"""The demo's stages: where things lie, and the commands that make them. Each finds by itself what is done already."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inheritune_lit.base.commands import inheritune
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.precision import fastest
from inheritune_lit.checkpoint.folder import MODEL_CONFIG
from inheritune_lit.checkpoint.layers import parse_layers
from inheritune_lit.data.manifest import Manifest
from inheritune_lit.demo.inputs import HELD_OUT, MODEL_NAME, fetch, unpack, write_text
from inheritune_lit.demo.package import QUESTIONS
from inheritune_lit.demo.results import compare
from inheritune_lit.evaluate.cloze import write_cloze

RECIPE = Path("recipes/demo.yaml")
DATA_RECIPE = Path("recipes/data/demo.yaml")
REFERENCE_BLOCKS = 30
DEFAULT_LAYERS, DEFAULT_STEPS = "0-3,19-29", 30  # what `inheritune choose` found; the recipe's
WINDOWS, LENGTH = 8, 128  # of the analysis: 1,024 tokens, as every depth costs a pass through the head


class Paths:
    """The demo's folders. Those that depend on a choice carry it in their name, so that nothing stale is taken up.

    Raises:
        InheritError: `layers` does not fit the reference, or there are too few steps.
    """

    def __init__(self, out_dir: Path, layers: str, steps: int) -> None:
        self.out_dir, self.layers, self.steps = out_dir, layers, steps
        self.blocks = parse_layers(layers, REFERENCE_BLOCKS)
        if steps < 10:
            raise InheritError(f"--steps {steps}: expected at least 10, the first 5 of which are warm-up.")
        names = ("downloads", f"reference/{MODEL_NAME}", "text", "tokens", "questions", "report")
        self.downloads, self.reference, self.text, self.tokens, self.questions, self.report = map(
            out_dir.joinpath, names
        )
        spec = re.sub(r"\s", "", layers)  # 0-10,26-29 → -0-10_26-29, ::2 → -..2
        chosen = "" if spec == DEFAULT_LAYERS else "-" + spec.replace(",", "_").replace(":", ".")
        count = len(self.blocks)  # all that matters to the other two: they serve all choices of as many blocks
        others = "" if count == len(parse_layers(DEFAULT_LAYERS, REFERENCE_BLOCKS)) else f"-{count}blocks"
        length = "" if steps == DEFAULT_STEPS else f"-{steps}steps"
        kept = {"chosen": (layers, chosen), "inherited": (str(count), others)}
        if self.blocks == list(range(count)):  # chosen are the first ones
            del kept["chosen"]
        self.kept = {start: spec for start, (spec, _) in kept.items()}
        """Start → its --layers: those chosen, and as many of the first, the paper's"""
        self.targets = {start: out_dir / f"{start}{suffix}" for start, (_, suffix) in kept.items()}
        suffixes = {start: suffix for start, (_, suffix) in kept.items()} | {"random": others}
        self.runs = {start: out_dir / f"runs/{start}{suffix}{length}" for start, suffix in suffixes.items()}
        self.best = next(iter(self.runs.values()))
        self.exported = out_dir / "exported" / self.best.name


def render(paths: Paths, start: str) -> dict[str, Any]:
    """The recipe of the run from this start: recipes/demo.yaml with the folders, blocks and steps asked for.

    Raises:
        InheritError: the target that surgery wrote has no model_config.yaml that can be read.
    """
    import yaml

    recipe: dict[str, Any] = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    target = paths.targets.get(start, paths.targets["inherited"])
    try:
        recipe["model_config"] = yaml.safe_load((target / MODEL_CONFIG).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InheritError(f"Can't read the target's shape: {error}. Delete {target} and run again.") from error
    train = recipe["train"]
    train["max_tokens"] = paths.steps * train["global_batch_size"] * train["max_seq_length"]
    recipe["precision"] = fastest().precision
    recipe["eval"]["final_validation"] = paths.steps % recipe["eval"]["interval"] != 0  # or the last step has one
    recipe |= {
        "initial_checkpoint_dir": str(target) if start in paths.targets else None,
        "tokenizer_dir": str(target),  # for its config.json with the true depth, which goes into the run
        "out_dir": str(paths.runs[start]),
    }
    data = recipe["data"]["init_args"]
    data["data_path"] = str(paths.tokens)
    windows = Manifest(paths.tokens).splits["train"].windows(train["max_seq_length"])
    data["epochs"] = math.ceil(paths.steps * train["global_batch_size"] / windows)
    return recipe


def fetch_inputs(paths: Paths) -> None:
    fetch(paths.downloads)
    write_text(paths.downloads, paths.text)


def prepare(paths: Paths) -> None:
    folders = ["--out_dir", paths.tokens, "--tokenizer_dir", paths.reference]
    inheritune("prepare", "--config", DATA_RECIPE, paths.text, *folders)  # what comes after the recipe wins


def surgery(paths: Paths) -> None:
    for start, layers in paths.kept.items():
        inheritune("surgery", paths.reference, "--layers", layers, "--out_dir", paths.targets[start])


def train(paths: Paths, start: str) -> None:
    import yaml

    if start not in paths.runs:
        print("  the blocks chosen are the first ones")
        return
    recipe = paths.runs[start].with_name(f"{paths.runs[start].name}.yaml")
    recipe.parent.mkdir(exist_ok=True)
    settings = render(paths, start)
    if recipe.is_file():  # what was begun keeps its precision, whatever the clock says now
        settings["precision"] = yaml.safe_load(recipe.read_text(encoding="utf-8"))["precision"]
    recipe.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    # without it, torch.compile takes longer than these few steps
    inheritune("pretrain", recipe, TORCHDYNAMO_DISABLE="1")


def evaluate(paths: Paths) -> None:
    """Questions made from the held-out play, for all runs and the reference."""
    write_cloze(paths.text / HELD_OUT, paths.questions, QUESTIONS)
    for subject in (*paths.runs.values(), paths.reference):
        inheritune("evaluate", subject, "--suite", "smoke", "--data_dir", paths.questions)


def export(paths: Paths) -> None:
    names = ["--license", "apache-2.0", "--base_model", "HuggingFaceTB/SmolLM2-135M-Instruct"]
    inheritune("export", paths.best, "--out_dir", paths.exported, *names)


def analyze(paths: Paths) -> None:
    """The reference, and what training made of the blocks that were kept."""
    for subject in (paths.reference, paths.best):
        inheritune("analyze", subject, "--data", paths.tokens, "--windows", WINDOWS, "--max_seq_length", LENGTH)


STAGES: dict[str, Callable[[Paths], object]] = {
    "Fetch the model and the text": fetch_inputs,
    "Unpack the reference": lambda paths: unpack(paths.downloads, paths.reference),
    "Turn the text into token shards": prepare,
    "Cut the reference": surgery,
    "Train the chosen blocks": lambda paths: train(paths, "chosen"),
    "Train as many of the first blocks, the paper's start, on the same batches": lambda paths: train(
        paths, "inherited"
    ),
    "Train a random start of the same shape on the same batches": lambda paths: train(paths, "random"),
    "Compare on the held-out play": compare,
    "Ask the models what comes next in the held-out play": evaluate,
    "Export the trained model to Hugging Face's format": export,  # with the answers in its model card
    "Which blocks are lazy, before and after?": analyze,
    "Put it all on one page": lambda paths: inheritune(
        "report", *paths.runs.values(), paths.reference, "--out_dir", paths.report
    ),
}
