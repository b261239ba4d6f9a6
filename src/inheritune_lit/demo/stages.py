"""The demo's middle: where things lie, and the commands that make them, each skipped if its result is whole."""

import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inheritune_lit.checkpoint import MODEL_CONFIG, WEIGHTS, Weights, read_receipt, versions
from inheritune_lit.commit import InheritError, read_json, sha256_file, write_json
from inheritune_lit.data.manifest import MANIFEST, Manifest
from inheritune_lit.demo.inputs import run_module, show
from inheritune_lit.layers import parse_layers
from inheritune_lit.verify import check_files

RECIPE = Path("recipes/demo.yaml")
DATA_RECIPE = Path("recipes/data/demo.yaml")
REFERENCE_BLOCKS = 30
DEFAULT_LAYERS, DEFAULT_STEPS = "15", 40  # those of the recipe
RUN_RECEIPT = "run.json"
STEP = re.compile(r"iter \d+ step (\d+) \| loss train: (\S+), val: (\S+) \|")  # a line of litGPT's


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
    """`inheritune prepare`, which goes on where it was; returns whether its result was there, whole."""
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
    import yaml

    run = paths.run(inherited=inherited)
    recipe = render(paths, inherited=inherited)
    expected = {
        # which folder of the same shape the config.json comes from is the same to a random start
        "recipe": _digest(recipe if inherited else recipe | {"tokenizer_dir": None}),
        "start": Weights(paths.target / WEIGHTS).fingerprint() if inherited else "random",
        "data": sha256_file(paths.tokens / MANIFEST),
        "versions": versions(),
    }
    if _is_whole(run, expected):
        return True
    if run.exists():  # stopped half-way, or of other parents
        if any(run.iterdir()) and not (run / "recipe.yaml").exists():
            raise InheritError(f"{run} holds something that is not a run of the demo. Move it away.")
        shutil.rmtree(run)
    run.mkdir(parents=True)
    header = f"# Made from {RECIPE} by `inheritune demo`.\n"
    (run / "recipe.yaml").write_text(header + yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    start = time.perf_counter()
    untrained = _pretrain(run / "recipe.yaml", run / "pretrain.log", paths.steps)
    receipt = expected | {
        "seconds": round(time.perf_counter() - start, 1),
        "tokens": recipe["train"]["max_tokens"],
        "validation_loss_untrained": untrained,
        "bytes": (run / "final" / WEIGHTS).stat().st_size,
    }
    write_json(run / RUN_RECEIPT, receipt)
    return False


def _digest(recipe: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _is_whole(run: Path, expected: dict[str, Any]) -> bool:
    try:
        receipt = read_json(run / RUN_RECEIPT, "run's receipt")
        same = all(receipt[key] == value for key, value in expected.items())
        return bool(same and (run / "final" / WEIGHTS).stat().st_size == receipt["bytes"])
    except (InheritError, OSError, KeyError):
        return False


def _pretrain(recipe: Path, log: Path, steps: int) -> float:
    """Runs `litgpt pretrain --config recipe` with a progress bar; all that it prints goes to `log`.

    Returns:
        The validation loss before training, which litGPT prints with the first step and logs nowhere else.

    Raises:
        InheritError: it failed; with the end of what it printed.
    """
    from tqdm import tqdm

    # without it, torch.compile takes longer than these few steps
    show(["litgpt", "pretrain", "--config", str(recipe)], TORCHDYNAMO_DISABLE="1")
    environment = os.environ | {"TORCHDYNAMO_DISABLE": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "litgpt", "pretrain", "--config", str(recipe)]
    untrained = math.nan
    with (
        log.open("w", encoding="utf-8") as file,
        tqdm(total=steps, desc="  loading", unit="step", dynamic_ncols=True) as bar,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            file.flush()
            if match := STEP.search(line):
                untrained = float(match[3]) if bar.n == 0 else untrained
                bar.set_description("  training", refresh=False)
                bar.set_postfix_str(f"loss {match[2]}, validation {match[3]}", refresh=False)
                bar.update(int(match[1]) - bar.n)
    if process.returncode or not (recipe.parent / "final" / WEIGHTS).is_file():
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise InheritError(f"litgpt pretrain failed with exit code {process.returncode}. {log} ends with:\n{tail}")
    return untrained
