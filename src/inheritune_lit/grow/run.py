"""The stages one after the other, each a `litgpt pretrain` of its own; whatever is done already is not done again."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from inheritune_lit import pretrain
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import sha256_file
from inheritune_lit.checkpoint.folder import WEIGHTS, find_checkpoint
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.data.manifest import MANIFEST
from inheritune_lit.evaluate import ValidationLoss
from inheritune_lit.grow import disk, stages
from inheritune_lit.grow.decision import decide, next_blocks
from inheritune_lit.grow.ledger import Ledger, State
from inheritune_lit.grow.measure import WINDOWS, about, measure, read_losses
from inheritune_lit.grow.stages import REFERENCE, Settings, Stage, recipe_of
from inheritune_lit.grow.view import View
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
        self.losses: dict[str, ValidationLoss] = {}
        self.view = View()

    def run(self) -> None:
        """Algorithm 2, then the comparisons at the n where it ended."""
        with self.view:
            self._grow()

    def _grow(self) -> None:
        self._benchmark()
        target = stages.first_target(self.settings)
        before: Stage | None = None
        while True:
            self._stage(target)
            if before:
                self._delete(disk.superseded(self.settings, before))
            following = next_blocks(target.blocks, step=self.settings.step, max_layers=self.settings.max_layers)
            decision = decide(self.losses[target.name], self.losses[REFERENCE], self.settings.tolerance)
            why = decision.why(target.blocks, following)
            self.ledger.decide(target.name, decision.as_json(why))
            print(why, flush=True)
            if decision.at_par or following is None:
                break
            before, target = target, stages.next_target(self.settings, target, following)
        for kind in self.settings.compare:
            self._stage(stages.comparison(kind, target.blocks))
        self._delete(disk.starts(self.settings))
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
        state = self.ledger.begin(REFERENCE, what, {}, {"data": self.data, "model": fingerprint})
        self._measure(REFERENCE, state, {"fingerprint": fingerprint})

    def _stage(self, stage: Stage) -> None:
        recipe = recipe_of(self.settings, stage)
        steps, parameters = Recipe.of(recipe).steps or 0, stages.parameters(recipe)
        what = {"start": stage.start, "blocks": stage.blocks, "parameters": parameters, "steps": steps}
        state = self.ledger.begin(stage.name, what, recipe, self._parents(stage))
        results: dict[str, Any] = {}
        if state != "done":
            self._write_start(stage, state)
        self.view.begin(stage, parameters, steps)
        if state != "done":
            receipt = pretrain.train(
                recipe,
                stages.folder(self.settings, stage),
                on_progress=lambda progress: self.view.progress(stage.name, progress),
                environment=self.environment,
                options=pretrain.Options(keep_last=disk.CHECKPOINTS if self.keep == "final" else None),
            )
            results = {key: receipt.get(key) for key in ("tokens", "seconds", "tokens_per_second")}
            results["fingerprint"] = self._fingerprint(stage.name)
        self._measure(stage.name, state, results)
        self.view.done(stage.name, self.losses[stage.name].mean)
        self._delete(disk.optimizer_states(self.settings, stage))

    def _parents(self, stage: Stage) -> dict[str, str]:
        parents = {"data": self.data}
        if stage.start in ("inherit", "grow"):
            parents[REFERENCE] = self._fingerprint(REFERENCE)
        if stage.grown_from is not None:
            parents[stage.grown_from] = self._fingerprint(stage.grown_from)
        return parents

    def _fingerprint(self, name: str) -> str:
        """The trained model's, as it lies there; the ledger's once it is deleted."""
        weights = self.model(name) / WEIGHTS
        known = self.ledger.stages.get(name, {}).get("fingerprint")
        return str(known) if known and not weights.exists() else Weights(weights).fingerprint()

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

    def _measure(self, name: str, state: State, results: Mapping[str, Any]) -> None:
        """The stage's loss, for decisions; `results` go into the ledger with it."""
        path = self.settings.out_dir / name / WINDOWS
        if state == "done" and (known := self._kept(name, path)):
            self.losses[name] = known
            return
        train = self.settings.base["train"]
        loss = self.losses[name] = measure(
            self.model(name), self.settings.data_path, train["max_seq_length"], train["micro_batch_size"], path
        )
        stderr = None if math.isnan(loss.stderr) else loss.stderr  # JSON knows no NaN
        found = {"validation_loss": loss.mean, "stderr": stderr, "windows": len(loss.per_window)}
        self.ledger.finish(name, {**found, **results})

    def _kept(self, name: str, path: Path) -> ValidationLoss | None:
        """The losses of a stage that is done; None if its file is not the ledger's, but its model is there to measure.

        Raises:
            InheritError: the model is gone or another one, too.
        """
        stage = self.ledger.stages[name]
        what = about(stage["fingerprint"], stage["parents"].get("data"), self.settings.base["train"]["max_seq_length"])
        try:
            if (loss := read_losses(path, what)).mean == stage["validation_loss"]:
                return loss
            problem = f"The window losses {path} have a mean of {loss.mean}, the ledger {stage['validation_loss']}."
        except InheritError as error:
            problem = str(error)
        weights = self.model(name) / WEIGHTS
        if not weights.is_file() or Weights(weights).fingerprint() != stage["fingerprint"]:
            raise InheritError(
                f"{problem} They can't be measured again: the model that {self.ledger.path} tells of is not in "
                f"{weights.parent}. Restore {path} or the model, or choose another out_dir."
            )
        print(f"{problem} Measuring again.", flush=True)
        path.unlink(missing_ok=True)
        return None

    def _delete(self, folders: list[Path]) -> None:
        if self.keep == "final":
            disk.delete(folders)
