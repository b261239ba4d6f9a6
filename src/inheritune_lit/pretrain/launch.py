"""`train`: one recipe, run to its end in its folder: litGPT started where the run was, listened to, explained."""

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inheritune_lit.base.command_line import given_command
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import write_json_whole
from inheritune_lit.checkpoint.folder import WEIGHTS
from inheritune_lit.data import TELL, trace
from inheritune_lit.plan.figures import Plan
from inheritune_lit.pretrain import patched_litgpt, resume, retention
from inheritune_lit.pretrain.cluster import taken_away
from inheritune_lit.pretrain.devices import plan_here
from inheritune_lit.pretrain.finish import bare_model, finish
from inheritune_lit.pretrain.options import Options
from inheritune_lit.pretrain.process import Terminated, listen
from inheritune_lit.pretrain.record import begin, check_same, environment_of, parents, read_record, run_lock, set_aside
from inheritune_lit.pretrain.watch import Diverged, Progress, Watch
from inheritune_lit.runs.folder import FORMAT, LAUNCH, LOG, RUN_RECEIPT, RUN_RECIPE, TRACE

NOT_CLIPPED = "is non-finite, so it cannot be clipped"  # how Fabric, on one device, ends a run whose loss is NaN
SHOWN = 64  # windows that are named one by one
HINTS = {
    signal.SIGKILL: " Was the memory full? `dmesg` says whether the kernel did it.",
    signal.SIGBUS: " A checkpoint or shard could not be read: `dmesg` may tell of its disk.",
}


def train(
    recipe: Mapping[str, Any],
    run: Path,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    environment: Mapping[str, str] = {},
    recipe_file: Path | None = None,
    options: Options = Options(),  # noqa: B008  # frozen
) -> dict[str, Any]:
    """Runs `litgpt pretrain` to the recipe's end, from the newest checkpoint of the run that verifies, if it has one.

    A finished run with the same recipe and parents is returned as it is.

    Args:
        recipe: litGPT's settings; `out_dir` becomes `run`.
        run: The folder of the run, made if it is missing.
        on_progress: Called for each line that litGPT prints, and about every second in which there is none.
        environment: Variables for the training, beside this process' own.
        recipe_file: Where the recipe comes from, to record the commit of its repository.
        options: How it is run.

    Returns:
        The receipt, `run/run.json`.

    Raises:
        InheritError: the folder is in use, or is of another recipe or parents; litGPT failed, or was stopped, with what
            to do to go on; the loss went wrong.
    """
    run = Path(run)
    recipe = {**recipe, "out_dir": str(run), "resume": False}
    with run_lock(run) as lock:
        if options.restart:
            set_aside(run)
        before = read_record(run)
        now = parents(recipe, before)
        if before:
            check_same(run, before, recipe, now)
            if (run / RUN_RECEIPT).is_file():
                return before
        plan, here = plan_here(recipe), environment_of(recipe_file)
        record = begin(run, recipe, before, now | here, plan.gpus)
        launch = Launch(recipe, run, plan, options, record, on_progress)
        shutil.rmtree(run / resume.CONVERTED, ignore_errors=True)
        checkpoint = resume.newest(run, plan.recipe.config, recipe["train"], plan.steps)
        if checkpoint is None or checkpoint.step < plan.steps or checkpoint.accumulation is not None:
            launch.run_litgpt(checkpoint, lock, here, environment)
        launch.tidy()
        return finish(run, recipe, plan, record)


@dataclass
class Launch:
    """One launch of a run, whose folder is locked for as long as this lives."""

    recipe: Mapping[str, Any]
    run: Path
    plan: Plan
    options: Options
    record: dict[str, Any]
    """launch.json"""
    on_progress: Callable[[Progress], None]
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.watch = Watch(self.plan.steps, self.options.max_spike, accumulation=self.plan.accumulation)

    def run_litgpt(
        self, checkpoint: resume.Checkpoint | None, lock: int, here: dict[str, Any], environment: Mapping[str, str]
    ) -> None:
        """Runs `litgpt pretrain` from the frozen recipe, to its end; `here` is what environment_of says."""
        module = "inheritune_lit.pretrain.patched_litgpt" if self.options.save_on_signal else "litgpt"
        command = [*self.options.before_python, sys.executable, "-m", module, "pretrain"]
        command += ["--config", str(self.run / RUN_RECIPE), *self._resumed(checkpoint)]
        self.record["launches"].append(
            {"from_step": self.watch.step, "began": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
            | {"micro_batch_size": self.recipe["train"]["micro_batch_size"], "world_size": self.plan.gpus}
            | {"compiled": {**os.environ, **environment}.get("TORCHDYNAMO_DISABLE") != "1"}
            | here
        )
        alone = taken_away(self.options.before_python, self.recipe.get("num_nodes") or 1)
        self._note()
        code: int | None = None
        try:
            code = listen(
                command,
                self.run / LOG,
                self.watch,
                environment={**alone, **environment, TELL: "1", trace.VARIABLE: self._traced()},
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
        path, now = checkpoint.path, self.plan.accumulation
        if checkpoint.accumulation != now:
            print(
                f"Resuming with {now} micro-batches a step instead of {checkpoint.accumulation}: the counters of a "
                f"copy of {path.parent.name} are converted; batches stay what they would have been."
            )
            path = resume.convert(checkpoint, now, self.run)
        print(f"Resuming after step {checkpoint.step} of {self.plan.steps}, {checkpoint.path.parent}", flush=True)
        return ["--resume", str(path), "--initial_checkpoint_dir", "null"]

    def _traced(self) -> str:
        """The first steps' samples, whose losses are noted, and where."""
        batch = self.plan.step_tokens // self.plan.sequence
        return f"{trace.STEPS[-1] * batch}:{(self.run / TRACE).absolute()}"

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
        config, last = self.plan.recipe.config, self.options.keep_last

        def check(folder: Path) -> object:
            return resume.check(folder / WEIGHTS, config, self.recipe["train"])

        def copy(saved: Path, out_dir: Path) -> object:
            return bare_model(saved, out_dir, config, self.recipe, {"step": resume.step_of(saved)})

        if last is not None:
            retention.tidy(self.run, last, self.options.keep_every, check, copy)

    def _note(self, **more: Any) -> None:
        """How far this launch has come, durable: the launcher may be killed at any moment."""
        watch = self.watch
        self.record["launches"][-1] |= {
            "to_step": watch.step,
            "seconds": round(time.monotonic() - self.began, 1),
            "timed_steps": watch.step - watch.first_step if watch.first_step is not None else 0,
            "timed_seconds": round(watch.last - watch.began, 3),
            "step_seconds": watch.step_seconds,
        } | more
        if watch.untrained is not None:
            self.record["validation_loss_untrained"] = watch.untrained
        write_json_whole(self.run / LAUNCH, {"format": FORMAT, "kind": "launch", **self.record})

    def _goes_on(self) -> str:
        # with --restart in it, the command would set aside what it has just trained
        command = re.sub(r" --restart(=\S+| true| false)?(?= |$)", "", given_command(), flags=re.IGNORECASE)
        newest = next((folder.name for folder in resume.saved(self.run) if resume.ends(folder / WEIGHTS)), None)
        where = f"resumes after {newest}" if newest else "starts from scratch, as no checkpoint was saved yet"
        return f"The same command {where}: {command}"

    def _diverged(self, error: Diverged) -> InheritError:
        return InheritError(
            f"{error} The run was stopped. {self._windows(error.first, error.last)}\n"
            "If the data are at fault, mend them and start from scratch; if the learning rate is, lower it in a new "
            f"run that starts from a checkpoint's weights. {self._goes_on()}"
        )

    def _windows(self, first: int, last: int) -> str:
        """One sentence that names the windows of some steps, and how to find them."""
        steps = f"Step {last}" if first == last else f"The steps {first} to {last}"
        try:
            taken = windows_of(self.plan, first, last)
        except InheritError as error:
            return f"{steps}: {error}"
        named = ", ".join(map(str, taken[:SHOWN])) + (f" and {len(taken) - SHOWN} more" if len(taken) > SHOWN else "")
        length = self.plan.sequence
        return (
            f"{steps} used the windows {named} of {self.plan.recipe.data['data_path']}: window w holds the tokens "
            f"w × {length} to (w + 1) × {length} of the train split's stream."
        )

    def _failed(self, code: int) -> InheritError:
        if code < 0:
            name, hint = signal.Signals(-code).name, HINTS.get(signal.Signals(-code), "")
            return InheritError(f"litgpt pretrain was killed by {name}.{hint} {self._goes_on()}")
        log = self.run / LOG
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


def windows_of(plan: Plan, first: int, last: int) -> list[int]:
    """The windows that the optimizer steps `first` to `last`, from 1, were trained on, in order.

    Raises:
        InheritError: the recipe's data are not PackedTokens, or are not at hand.
    """
    from inheritune_lit.data.order import epoch_order

    if plan.manifest is None:
        raise InheritError("which windows they used is known for PackedTokens only, while they are at hand.")
    windows, batch = plan.manifest.splits["train"].windows(plan.sequence), plan.step_tokens // plan.sequence
    places = [divmod(position, windows) for position in range((first - 1) * batch, last * batch)]
    seed = int(plan.recipe.data.get("seed", 42))
    orders = {epoch: epoch_order(windows, seed, epoch) for epoch in {epoch for epoch, _ in places}}
    return [int(orders[epoch][position]) for epoch, position in places]
