"""One launch of a run: litGPT started where the run was, what it prints noted, what it ends with explained."""

import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from inheritune_lit.base.differences import differences
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import write_json_whole
from inheritune_lit.checkpoint.folder import WEIGHTS
from inheritune_lit.data import TELL
from inheritune_lit.pretrain import patched_litgpt, resume, retention
from inheritune_lit.pretrain.cluster import taken_away
from inheritune_lit.pretrain.finish import bare_model
from inheritune_lit.pretrain.options import Options
from inheritune_lit.pretrain.process import Terminated, listen
from inheritune_lit.pretrain.record import check_tied, environment, freeze
from inheritune_lit.pretrain.settings import Settings
from inheritune_lit.pretrain.watch import Diverged, Progress, Watch
from inheritune_lit.pretrain.windows import describe
from inheritune_lit.runs.folder import FORMAT, LAUNCH, LOG, RUN_RECIPE

NOT_CLIPPED = "is non-finite, so it cannot be clipped"  # how Fabric, on one device, ends a run whose loss is NaN


def _without_restart(arguments: list[str]) -> list[str]:
    """What to give again to resume: with --restart in it, the command would set aside what it has just trained."""
    return [
        word
        for before, word in pairwise(["", *arguments])
        if word.partition("=")[0] != "--restart" and not (before == "--restart" and word.lower() in ("true", "false"))
    ]


class Launch:
    """One run in its folder, which is locked for as long as this lives."""

    def __init__(
        self,
        recipe: Mapping[str, Any],
        run: Path,
        settings: Settings,
        options: Options,
        environment: Mapping[str, str],
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.recipe, self.run, self.settings, self.options = recipe, run, settings, options
        self.environment, self.on_progress = environment, on_progress
        self.record: dict[str, Any] = {}
        self.watch = Watch(settings.steps, options.max_spike, accumulation=settings.accumulation)
        self._began = 0.0
        self._told: set[str] = set()
        self._here: dict[str, Any] = {}

    def prepare(self, before: Mapping[str, Any] | None, now: Mapping[str, Any], recipe_file: Path | None) -> None:
        """Freezes the recipe and the environment.

        Args:
            before: What earlier launches recorded.
            now: What the run comes from, parents().
            recipe_file: Where the recipe comes from.
        """
        if before:
            check_tied(self.run, before, self.recipe, self.settings.world_size)
        first = before or {"launches": []}
        self._here = environment(recipe_file)
        for launch in first["launches"][-1:]:
            if lines := differences(launch.get("versions", self._here["versions"]), self._here["versions"]):
                print(f"Resuming with other software than the launch before: {'; '.join(lines)}.", flush=True)
        self.record = {**first, "recipe": self.recipe, **now, **self._here}
        freeze(self.run, self.recipe, self.record)

    def newest(self) -> resume.Checkpoint | None:
        shutil.rmtree(self.run / resume.CONVERTED, ignore_errors=True)
        return resume.newest(self.run, self.settings.config, self.recipe["train"], self.settings.steps)

    def run_litgpt(self, checkpoint: resume.Checkpoint | None, lock: int) -> None:
        """Runs `litgpt pretrain` from the frozen recipe, to its end."""
        module = "inheritune_lit.pretrain.patched_litgpt" if self.options.save_on_signal else "litgpt"
        command = [*self.options.before_python, sys.executable, "-m", module, "pretrain"]
        command += ["--config", str(self.run / RUN_RECIPE), *self._resumed(checkpoint)]
        self.record["launches"].append(
            {"from_step": self.watch.step, "began": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
            | {"micro_batch_size": self.recipe["train"]["micro_batch_size"], "world_size": self.settings.world_size}
            | self._here
        )
        alone = taken_away(self.options.before_python, self.recipe.get("num_nodes") or 1)
        self._began = time.monotonic()
        self._note()
        code: int | None = None
        try:
            code = listen(
                command,
                self.run / LOG,
                self.watch,
                environment={**alone, **self.environment, TELL: "1"},
                lock=lock,
                on_progress=self._hear,
                grace=self.options.grace,
            )
        except Diverged as error:
            raise self._diverged(error) from None
        except Terminated as error:
            raise Terminated(f"{error} {self._goes_on()}") from None
        finally:
            self._note(exit=code)
        if code:
            raise self._failed(code)

    def _resumed(self, checkpoint: resume.Checkpoint | None) -> list[str]:
        """The arguments by which litGPT resumes from a checkpoint."""
        if checkpoint is None:
            return []
        self.watch.step = checkpoint.step
        path, now = checkpoint.path, self.settings.accumulation
        if checkpoint.accumulation != now:
            print(
                f"Resuming with {now} micro-batches a step instead of {checkpoint.accumulation}: the counters of a "
                f"copy of {path.parent.name} are converted; batches stay what they would have been."
            )
            path = resume.convert(checkpoint, now, self.run)
        print(f"Resuming after step {checkpoint.step} of {self.settings.steps}, {checkpoint.path.parent}", flush=True)
        return ["--resume", str(path), "--initial_checkpoint_dir", "null"]

    def _hear(self, progress: Progress) -> None:
        self.on_progress(progress)
        if self.watch.saved is None or self.watch.interrupted:  # it may not be done with saving
            return
        self.watch.saved = None
        shutil.rmtree(self.run / resume.CONVERTED, ignore_errors=True)
        self._note()
        self.tidy()

    def tidy(self) -> None:
        """Removes the checkpoints that need not stay, if asked to."""
        if self.options.keep_last is not None:
            last, every = self.options.keep_last, self.options.keep_every
            retention.tidy(self.run, last, every, self._check, self._copy, self._told)

    def _check(self, folder: Path) -> object:
        return resume.check(folder / WEIGHTS, self.settings.config, self.recipe["train"])

    def _copy(self, saved: Path, out_dir: Path) -> None:
        bare_model(saved, out_dir, self.settings.config, self.recipe, {"step": resume.step_of(saved)})

    def _note(self, **more: Any) -> None:
        """How far this launch has come, durable: the launcher may be killed at any moment."""
        watch = self.watch
        self.record["launches"][-1] |= {
            "to_step": watch.step,
            "seconds": round(time.monotonic() - self._began, 1),
            "timed_steps": watch.step - watch.first_step if watch.first_step is not None else 0,
            "timed_seconds": round(watch.last - watch.began, 3),
            "step_seconds": watch.step_seconds,
        } | more
        if watch.untrained is not None:
            self.record["validation_loss_untrained"] = watch.untrained
        write_json_whole(self.run / LAUNCH, {"format": FORMAT, "kind": "launch", **self.record})

    def _goes_on(self) -> str:
        name = Path(sys.argv[0]).name
        program = ["python", "-m", "inheritune_lit"] if name == "__main__.py" else [name]
        command = shlex.join([*program, *_without_restart(sys.argv[1:])])
        newest = next((folder.name for folder in resume.saved(self.run) if resume.ends(folder / WEIGHTS)), None)
        where = f"resumes after {newest}" if newest else "starts from scratch, as no checkpoint was saved yet"
        return f"The same command {where}: {command}"

    def _diverged(self, error: Diverged) -> InheritError:
        return InheritError(
            f"{error} The run was stopped. {describe(self.recipe, self.settings, error.first, error.last)}\n"
            "If the data are at fault, mend them and start from scratch; if the learning rate is, lower it in a new "
            f"run that starts from a checkpoint's weights. {self._goes_on()}"
        )

    def _failed(self, code: int) -> InheritError:
        log = self.run / LOG
        if code < 0:
            hints = {
                signal.SIGKILL: " Was the memory full? `dmesg` says whether the kernel did it.",
                signal.SIGBUS: " A checkpoint or shard could not be read: `dmesg` may tell of its disk.",
            }
            hint = hints.get(signal.Signals(-code), "")
            return InheritError(f"litgpt pretrain was killed by {signal.Signals(-code).name}.{hint} {self._goes_on()}")
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        if code == 128 + signal.SIGTERM and patched_litgpt.SAVED in tail:
            return InheritError(f"litgpt pretrain was stopped by a signal, and has saved. {self._goes_on()}")
        if NOT_CLIPPED in tail:
            first = self.watch.step + 1
            last = self.watch.step + self.recipe["train"].get("log_interval", 1)
            steps = f"step {first}" if first == last else f"one of the steps {first} to {last}"
            return self._diverged(Diverged(f"The gradients are not finite at {steps}.", first, last))
        return InheritError(
            f"litgpt pretrain failed with exit code {code}. {log} ends with:\n{tail}\n{self._goes_on()}"
        )
