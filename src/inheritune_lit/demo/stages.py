"""The demo's middle: where things lie, and the commands that make them, each skipped if its result is whole."""

import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inheritune_lit import pretrain
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json
from inheritune_lit.base.precision import fastest
from inheritune_lit.checkpoint.folder import MODEL_CONFIG, WEIGHTS
from inheritune_lit.checkpoint.layers import parse_layers
from inheritune_lit.checkpoint.receipt import check_files, read_receipt, versions
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.data.manifest import MANIFEST, Manifest
from inheritune_lit.demo.inputs import run_module, show
from inheritune_lit.pretrain.bar import Bar
from inheritune_lit.pretrain.record import check_same, parents
from inheritune_lit.runs.folder import LAUNCH, RUN_RECEIPT, RUN_RECIPE

RECIPE = Path("recipes/demo.yaml")
DATA_RECIPE = Path("recipes/data/demo.yaml")
REFERENCE_BLOCKS = 30
DEFAULT_LAYERS, DEFAULT_STEPS = "15", 40  # those of the recipe


@dataclass(frozen=True)
class Paths:
    """The demo's folders. Those that depend on a choice carry it in their name, so that nothing stale is taken up.

    Raises:
        InheritError: `layers` does not fit the reference, or there are too few steps.
    """

    out_dir: Path
    layers: str
    steps: int

    def __post_init__(self) -> None:
        parse_layers(self.layers, REFERENCE_BLOCKS)
        if self.steps < 10:
            raise InheritError(f"--steps {self.steps}: expected at least 10, the first 5 of which are warm-up.")

    @property
    def blocks(self) -> list[int]:
        return parse_layers(self.layers, REFERENCE_BLOCKS)

    @property
    def downloads(self) -> Path:
        return self.out_dir / "downloads"

    @property
    def reference(self) -> Path:
        return self.out_dir / "reference"

    @property
    def text(self) -> Path:
        return self.out_dir / "text"

    @property
    def tokens(self) -> Path:
        return self.out_dir / "tokens"

    @property
    def target(self) -> Path:
        return self.out_dir / f"inherited{self._layers_suffix}"

    def run(self, *, inherited: bool) -> Path:
        steps = "" if self.steps == DEFAULT_STEPS else f"-{self.steps}steps"
        if inherited:
            return self.out_dir / "runs" / f"inherited{self._layers_suffix}{steps}"
        # only their number matters to a random start: one run serves all choices of as many blocks
        blocks = "" if len(self.blocks) == int(DEFAULT_LAYERS) else f"-{len(self.blocks)}blocks"
        return self.out_dir / "runs" / f"random{blocks}{steps}"

    @property
    def _layers_suffix(self) -> str:
        """`0-10,26-29` → `-0-10_26-29`, `::2` → `-..2`; nothing for the default."""
        spec = re.sub(r"\s", "", self.layers)
        return "" if spec == DEFAULT_LAYERS else "-" + spec.replace(",", "_").replace(":", ".")


def prepare(paths: Paths) -> bool:
    """`inheritune prepare`, which resumes where it stopped; returns whether its result was there, whole."""
    there = (paths.tokens / MANIFEST).is_file()
    folders = [paths.text, "--out_dir", paths.tokens, "--tokenizer_dir", paths.reference]
    # the folders come after the recipe: what comes later wins
    run_module("inheritune_lit", "prepare", "--config", str(DATA_RECIPE), *map(str, folders), name="inheritune")
    return there


def surgery(paths: Paths) -> bool:
    """`inheritune surgery`; returns whether its result was there, whole, and cut from this reference."""
    try:
        receipt = read_receipt(paths.target)
        check_files(paths.target, receipt["files"])
        fingerprint = Weights(paths.reference / WEIGHTS).fingerprint()
        if (receipt["source"]["fingerprint"], receipt["blocks"]) == (fingerprint, paths.blocks):
            return True
    except (InheritError, KeyError, TypeError):
        pass
    arguments = [str(paths.reference), "--layers", paths.layers, "--out_dir", str(paths.target)]
    overwrite = ["--overwrite"] if paths.target.exists() else []
    run_module("inheritune_lit", "surgery", *arguments, *overwrite, name="inheritune")
    return False


def render(paths: Paths, *, inherited: bool) -> dict[str, Any]:
    """The recipe of one run: recipes/demo.yaml with the folders, blocks and steps that were asked for.

    Raises:
        InheritError: the target that surgery wrote has no model_config.yaml that can be read.
    """
    import yaml

    recipe: dict[str, Any] = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    try:
        recipe["model_config"] = yaml.safe_load((paths.target / MODEL_CONFIG).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InheritError(f"Can't read the target's shape: {error}. Delete {paths.target} and run again.") from error
    train = recipe["train"]
    train["max_tokens"] = paths.steps * train["global_batch_size"] * train["max_seq_length"]
    recipe["precision"] = fastest().precision
    recipe["eval"]["final_validation"] = paths.steps % recipe["eval"]["interval"] != 0  # or the last step has one
    recipe |= {
        "initial_checkpoint_dir": str(paths.target) if inherited else None,
        "tokenizer_dir": str(paths.target),  # for its config.json with the true depth, which goes into the run
        "out_dir": str(paths.run(inherited=inherited)),
    }
    data = recipe["data"]["init_args"]
    data["data_path"] = str(paths.tokens)
    windows = (Manifest(paths.tokens).splits["train"].tokens - 1) // train["max_seq_length"]
    data["epochs"] = math.ceil(paths.steps * train["global_batch_size"] / windows)
    return recipe


def train(paths: Paths, *, inherited: bool) -> bool:
    """`litgpt pretrain` from the inherited or from a random start; returns whether the run was there, whole.

    Raises:
        InheritError: litgpt failed, or the run's folder holds something else.
    """
    run, recipe = paths.run(inherited=inherited), render(paths, inherited=inherited)
    if _is_stale(run, recipe):
        shutil.rmtree(run)
    if there := (run / RUN_RECEIPT).is_file():
        pretrain.train(recipe, run)
        return there
    # without it, torch.compile takes longer than these few steps
    environment = {"TORCHDYNAMO_DISABLE": "1"}
    print(f"  precision {fastest().why}")
    show(["litgpt", "pretrain", "--config", str(run / RUN_RECIPE)], **environment)
    with Bar() as bar:
        pretrain.train(recipe, run, on_progress=bar, environment=environment, recipe_file=RECIPE)
    return there


def _is_stale(run: Path, recipe: dict[str, Any]) -> bool:
    """Whether the run is of other settings, parents or versions, and is to be made again."""
    record = next((run / name for name in (RUN_RECEIPT, LAUNCH) if (run / name).is_file()), None)
    if record is None:
        return False
    try:
        before = read_json(record, "run's record")
        check_same(run, before, recipe, parents(recipe))
        return any(before["versions"][name] != version for name, version in versions().items())
    except (InheritError, KeyError, TypeError):
        return True
