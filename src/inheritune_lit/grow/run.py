"""The stages one after the other, each a `litgpt pretrain` of its own; whatever is done already is not done again."""

import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from inheritune_lit import pretrain
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import sha256_file
from inheritune_lit.checkpoint.folder import WEIGHTS, find_checkpoint
from inheritune_lit.checkpoint.opening import open_weights
from inheritune_lit.data.manifest import MANIFEST
from inheritune_lit.evaluate import ValidationLoss
from inheritune_lit.evaluate.held_out import held_out_loss
from inheritune_lit.grow import stages
from inheritune_lit.grow.decision import decide
from inheritune_lit.grow.ledger import Ledger, State
from inheritune_lit.grow.plan import CHECKPOINTS
from inheritune_lit.grow.stages import REFERENCE, Settings, Stage, recipe_of
from inheritune_lit.pretrain.bar import Bar
from inheritune_lit.recipes.recipe import Recipe

Keep = Literal["all", "final"]


class Growth:
    """One growth in its out_dir.

    Args:
        settings: The growth recipe.
        keep: "final" deletes what no later stage needs, as soon as none does.
        environment: What to set for every training besides the environment there is.

    Raises:
        InheritError: out_dir holds a growth of other settings, or one that is further than max_layers.
    """

    def __init__(self, settings: Settings, keep: Keep, environment: Mapping[str, str]) -> None:
        self.settings, self.keep, self.environment = settings, keep, environment
        self.ledger = Ledger(settings.out_dir, settings.identity())
        if (trained := self._trained()) > settings.max_layers:
            raise InheritError(
                f"max_layers is {settings.max_layers}, and {settings.out_dir} holds a trained target of {trained} "
                f"blocks already. Give --max_layers {trained} or more, or another out_dir."
            )
        self.data = sha256_file(settings.data_path / MANIFEST)

    def run(self) -> None:
        """Algorithm 2, then the comparisons at the n where it ended."""
        self._benchmark()
        targets = stages.targets(self.settings)
        for before, target, following in zip([None, *targets], targets, [*targets[1:], None], strict=False):
            self._stage(target)
            if before:  # not at par, and in mode `continue` the next one started from it
                self._delete([self.model(before.name), stages.start_folder(self.settings, before.blocks)])
            decision = decide(self.ledger.loss(target.name), self.ledger.loss(REFERENCE), self.settings.tolerance)
            why = decision.why(target.blocks, following.blocks if following else None)
            numbers = {"difference": decision.difference, "tolerance": decision.tolerance}
            self.ledger.decide(target.name, {"at_par": decision.at_par, "why": why, **numbers})
            print(why, flush=True)
            if decision.at_par:
                break
        for kind in self.settings.compare:
            self._stage(stages.comparison(kind, target.blocks))
        self._delete([self.settings.out_dir / "starts"])
        self.ledger.conclude(why)

    def model(self, name: str) -> Path:
        """The checkpoint folder of a stage's trained model."""
        given = self.settings.reference_dir
        if name != REFERENCE or given is None:
            return self.settings.out_dir / name / "model"
        return find_checkpoint(given)

    def _trained(self) -> int:
        """n of the largest target that is done; 0 if none is."""
        done = (stage for stage in self.ledger.stages.values() if stage["state"] == "done")
        return max((stage["blocks"] for stage in done if stage["start"] in ("inherit", "grow")), default=0)

    def _benchmark(self) -> None:
        if self.settings.reference_dir is None:
            self._stage(stages.reference(self.settings))
            return
        fingerprint = self._fingerprint(REFERENCE)
        what = {"start": "given", "blocks": self.settings.blocks}
        if self.ledger.begin(REFERENCE, what, {}, {"data": self.data, "model": fingerprint}) != "done":
            self._measure(REFERENCE, {})

    def _stage(self, stage: Stage) -> None:
        recipe, run = recipe_of(self.settings, stage), stages.folder(self.settings, stage)
        steps, parameters = Recipe.of(recipe).steps or 0, stages.parameters(recipe)
        what = {"start": stage.start, "blocks": stage.blocks, "parameters": parameters, "steps": steps}
        state = self.ledger.begin(stage.name, what, recipe, self._parents(stage))
        if state != "done":
            self._write_start(stage, state)
            print(f"{stage.name} ({stage.title}): {parameters / 1e6:,.1f} M parameters, {steps:,} steps", flush=True)
            options = pretrain.Options(keep_last=CHECKPOINTS if self.keep == "final" else None)
            with Bar(stage.name) as bar:
                receipt = pretrain.train(recipe, run, on_progress=bar, environment=self.environment, options=options)
            self._measure(stage.name, {key: receipt.get(key) for key in ("tokens", "seconds", "tokens_per_second")})
        print(f"{stage.name}: validation loss {self.ledger.loss(stage.name).mean:.4f}", flush=True)
        # two thirds of them optimizer states; with copies of their weights, and torn ones that a launch set aside
        self._delete(path for pattern in ("step-*", "final", "weights", ".torn-*") for path in run.glob(pattern))

    def _parents(self, stage: Stage) -> dict[str, str]:
        parents = {"data": self.data}
        if stage.start in ("inherit", "grow"):
            parents[REFERENCE] = self._fingerprint(REFERENCE)
        if stage.grown_from is not None:
            parents[stage.grown_from] = self._fingerprint(stage.grown_from)
        return parents

    def _fingerprint(self, name: str) -> str:
        """The trained model's, as it lies there; the ledger's once it is deleted."""
        folder, known = self.model(name), self.ledger.stages.get(name, {}).get("fingerprint")
        return str(known) if known and not folder.exists() else open_weights(folder)[1].fingerprint()

    def _write_start(self, stage: Stage, state: State) -> None:
        """The checkpoint to start from; a random start takes its tokenizer files and config.json from it."""
        from inheritune_lit.surgery.command import surgery

        out_dir = stages.start_folder(self.settings, stage.blocks)
        # one that is there and not new was written for this stage, whose parents the ledger has just compared
        if stage.name == REFERENCE or (out_dir.exists() and (state != "new" or stage.start == "random")):
            return
        options: dict[str, Any] = {"layers": str(stage.blocks), "out_dir": out_dir, "overwrite": out_dir.exists()}
        if stage.grown_from is not None:
            target = self.model(stage.grown_from)
            if not (target / WEIGHTS).is_file():
                raise InheritError(
                    f"{stage.name} would grow from {target}, which is gone: keep: final deletes a target once the next "
                    f"one is trained. Here only --max_layers {self._trained()} goes on; for more give another out_dir."
                )
            options |= {"start": "grow", "target_dir": target}
        surgery(self.model(REFERENCE), **options)

    def _measure(self, name: str, results: Mapping[str, Any]) -> None:
        """The stage's loss, for decisions; `results` go into the ledger with it."""
        loss = measure(self.model(name), self.settings.base)
        stderr = None if math.isnan(loss.stderr) else loss.stderr  # JSON knows no NaN
        found = {"validation_loss": loss.mean, "stderr": stderr, "per_window": list(loss.per_window)}
        self.ledger.finish(name, {"fingerprint": self._fingerprint(name), **results, **found})

    def _delete(self, folders: Iterable[Path]) -> None:
        """`keep: final`: what no later stage needs; what it was is still in the receipts, the logs and the ledger."""
        for path in list(folders) if self.keep == "final" else ():
            shutil.rmtree(path, ignore_errors=True)


def measure(checkpoint: Path, recipe: Mapping[str, Any]) -> ValidationLoss:
    """A model's loss on every window of the recipe's held-out data, on a GPU if there is one.

    Raises:
        InheritError: the model is too short for the recipe's windows, or its loss is not finite.
    """
    import torch

    train, data = recipe["train"], Path(recipe["data"]["init_args"]["data_path"])
    sizes = {"max_seq_length": train["max_seq_length"], "batch_size": train["micro_batch_size"]}
    loss = ValidationLoss(held_out_loss(checkpoint, data, **sizes)["per_window"])
    torch.cuda.empty_cache()  # the next training needs all of the GPU, and we live beside it
    if not math.isfinite(loss.mean):
        raise InheritError(
            f"The validation loss of {checkpoint} is {loss.mean}: its training has diverged, or its weights are "
            "damaged. Lower the recipe's learning rate and start over in another out_dir, or give another reference."
        )
    return loss
