"""`train`: one recipe, run to its end in its folder, from where it was."""

import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.checkpoint import WEIGHTS
from inheritune_lit.commit import InheritError, _locked, read_json, write_json_whole
from inheritune_lit.launch import child
from inheritune_lit.launch.process import Terminated, listen
from inheritune_lit.launch.record import check_same, environment, freeze, parents, read_launch, set_aside
from inheritune_lit.launch.schedule import Schedule
from inheritune_lit.launch.settings import Settings, settings_of
from inheritune_lit.launch.watch import Diverged, Progress, Watch
from inheritune_lit.runs import FORMAT, LAUNCH, MODEL, RUN_RECEIPT, read_run

if TYPE_CHECKING:
    from inheritune_lit.launch.resume import Checkpoint

LOG = "pretrain.log"
ORPHAN = 15  # seconds that a training whose launcher was killed may take to die


@dataclass(frozen=True)
class Options:
    """What a launch is told beside its recipe."""

    max_spike: float = 3.0
    """Nats above the recent median at which a step's loss stops the run"""
    stall_factor: float = 10.0
    """Median steps without a step after which the run is reported to stand still"""
    save_on_signal: bool = False
    """Save at the end of the step when SIGTERM comes"""
    python: tuple[str, ...] = (sys.executable,)
    """How Python is started, `torchrun …` where several nodes take part"""
    grace: float = 30.0
    """Seconds from SIGTERM to SIGKILL for the training"""
    on_saved: Callable[[Path], None] = field(default=lambda folder: None)
    """Called with a checkpoint's folder, once litGPT has trained on after saving it"""


def train(
    recipe: Mapping[str, Any],
    run: Path,
    *,
    restart: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    environment: Mapping[str, str] = {},
    recipe_file: Path | None = None,
    options: Options = Options(),  # frozen
) -> dict[str, Any]:
    """Runs `litgpt pretrain` to the recipe's end, from the newest checkpoint of the run that verifies, if it has one.

    A finished run with the same recipe and parents is returned as it is.

    Args:
        recipe: litGPT's settings; `out_dir` becomes `run`.
        run: The folder of the run, made if it is missing.
        restart: Begin anew. What is there is moved into a folder inside it.
        on_progress: Called for each step that litGPT logs.
        environment: Variables for the training, beside this process' own.
        recipe_file: Where the recipe comes from, to record the commit of its repository.
        options: What else there is to say.

    Returns:
        The receipt, `run/run.json`.

    Raises:
        InheritError: the folder is in use, or is of another recipe or parents; litGPT failed, or was stopped, with what
            to do to go on; the loss went wrong.
    """
    run = Path(run)
    recipe = {**recipe, "out_dir": str(run), "resume": False}
    with _run_lock(run) as lock:
        if restart:
            set_aside(run)
        if (run / RUN_RECEIPT).is_file():
            receipt = read_json(run / RUN_RECEIPT, "run's receipt")
            check_same(run, receipt, recipe, parents(recipe, receipt))
            return receipt
        launch = Launch(recipe, run, settings_of(recipe), options, environment, on_progress or (lambda progress: None))
        launch.prepare(recipe_file)
        checkpoint = launch.newest()
        if checkpoint is None or checkpoint.step < launch.settings.steps or checkpoint.accumulation is not None:
            launch.run_litgpt(checkpoint, lock)
        return launch.finish()


@contextmanager
def _run_lock(run: Path) -> Iterator[int]:
    """The run folder's lock. A training whose launcher was killed holds it too, until the kernel has ended it."""
    deadline = time.monotonic() + ORPHAN
    while True:
        try:
            with _locked(run) as lock:
                yield lock
            return
        except InheritError as error:
            if "Another process" not in str(error):
                raise
            if time.monotonic() > deadline:
                raise InheritError(
                    f"{run} is in use: another launch, or a training that one left, is writing it now. Wait for it, or "
                    "stop it."
                ) from None
        time.sleep(0.2)


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
        self.watch = Watch(settings.steps, options.max_spike, options.stall_factor)
        self._began = 0.0

    def prepare(self, recipe_file: Path | None) -> None:
        """Compares with what earlier launches recorded, and freezes the recipe and the environment."""
        before = read_launch(self.run)
        now = parents(self.recipe, before)
        if before:
            check_same(self.run, before, self.recipe, now)
        first = before or {"schedule": self.settings.schedule.as_dict(), "launches": []}
        self.record = {**first, "recipe": self.recipe, **now, **environment(recipe_file)}
        freeze(self.run, self.recipe, self.record)

    def newest(self) -> "Checkpoint | None":
        from inheritune_lit.launch import resume

        shutil.rmtree(self.run / resume.CONVERTED, ignore_errors=True)
        return resume.newest(self.run, self.settings.config, self.recipe["train"], self.settings.steps)

    def run_litgpt(self, checkpoint: "Checkpoint | None", lock: int) -> None:
        """Runs `litgpt pretrain` from the frozen recipe, to its end."""
        arguments, variables = self._resumed(checkpoint)
        kept = Schedule(**self.record["schedule"])
        if kept != self.settings.schedule:
            variables |= kept.variable()
        if self.options.save_on_signal:
            variables[child.SAVE_ON_SIGNAL] = "1"
        module = "inheritune_lit.launch.child" if variables else "litgpt"
        command = [
            *self.options.python,
            "-m",
            module,
            "pretrain",
            "--config",
            str(self.run / "recipe.yaml"),
            *arguments,
        ]
        self.record["launches"].append(
            {"from_step": self.watch.step, "began": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
            | {"micro_batch_size": self.recipe["train"]["micro_batch_size"], "world_size": self.settings.world_size}
        )
        self._began = time.monotonic()
        code: int | None = None
        try:
            code = listen(
                command,
                self.run / LOG,
                self.watch,
                environment={**self.environment, **variables},
                lock=lock,
                on_progress=self.on_progress,
                on_line=self._line,
                on_quiet=lambda message: print(message, flush=True),
                grace=self.options.grace,
            )
        except Diverged as error:
            raise self._diverged(error) from None
        except (Terminated, KeyboardInterrupt) as error:
            raise Terminated(f"{error or 'Interrupted.'} {self._goes_on()}") from None
        finally:
            self._note(exit=code)
        if code:
            raise self._failed(code)

    def _resumed(self, checkpoint: "Checkpoint | None") -> tuple[list[str], dict[str, str]]:
        """What litGPT is told to go on from."""
        from inheritune_lit.launch import resume

        if checkpoint is None:
            return [], {}
        self.watch.step = checkpoint.step
        path, now = checkpoint.path, self.settings.schedule.accumulation
        if checkpoint.accumulation != now:
            print(
                f"Going on with {now} micro-batches a step instead of {checkpoint.accumulation}: the counters of a "
                f"copy of {path.parent.name} are converted; batches and learning rates stay what they would have been."
            )
            path = resume.convert(checkpoint, now, self.run)
        print(f"Going on after step {checkpoint.step} of {self.settings.steps}, {checkpoint.path.parent}", flush=True)
        return ["--resume", str(path), "--initial_checkpoint_dir", "null"], {}

    def _line(self, line: str) -> None:
        from inheritune_lit.launch import resume

        if self.watch.saved is None or self.watch.interrupted:  # it may not be done with saving
            return
        saved, self.watch.saved = Path(self.watch.saved).parent, None
        shutil.rmtree(self.run / resume.CONVERTED, ignore_errors=True)
        self._note()
        self.options.on_saved(saved)

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
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        steps = sorted(folder.name for folder in self.run.glob("step-*"))
        where = f"goes on after {steps[-1]}" if steps else "begins anew, as no checkpoint was saved yet"
        return f"The same command {where}: {command}"

    def _diverged(self, error: Diverged) -> InheritError:
        from inheritune_lit.launch.windows import describe

        return InheritError(
            f"{error} The run was stopped. {describe(self.recipe, self.settings, error.first, error.last)}\n"
            "If it is the data, mend them and begin anew; if it is the learning rate, lower it in a new run that "
            f"starts from a checkpoint's weights. {self._goes_on()}"
        )

    def _failed(self, code: int) -> InheritError:
        log = self.run / LOG
        if code < 0:
            hint = " Was the memory full? `dmesg` says whether the kernel did it." if code == -signal.SIGKILL else ""
            return InheritError(f"litgpt pretrain was killed by {signal.Signals(-code).name}.{hint} {self._goes_on()}")
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        return InheritError(
            f"litgpt pretrain failed with exit code {code}. {log} ends with:\n{tail}\n{self._goes_on()}"
        )

    def finish(self) -> dict[str, Any]:
        """Verifies the last checkpoint, writes `model/`, and the receipt last."""
        from inheritune_lit.launch import finish, resume

        settings, final = self.settings, self.run / resume.FINAL
        if not (final / WEIGHTS).is_file():
            raise InheritError(f"litgpt pretrain ended well, and left no {final / WEIGHTS}. Is its disk full?")
        resume.check(final / WEIGHTS, settings.config, self.recipe["train"], final_step=settings.steps)
        tokens = self.recipe["train"]["max_tokens"]
        trained = {
            "start": self.record["start"],
            "data": self.record["data"],
            "tokens": tokens,
            "steps": settings.steps,
        }
        tokenizer_dir = Path(str(self.recipe["tokenizer_dir"])) if self.recipe.get("tokenizer_dir") else None
        parameters = finish.bare_model(final, self.run / MODEL, tokenizer_dir, trained)
        launches: Sequence[Mapping[str, Any]] = self.record["launches"]
        timed = {name: sum(launch.get(f"timed_{name}", 0) for launch in launches) for name in ("steps", "seconds")}
        curves = read_run(self.run).curves
        receipt = {
            "format": FORMAT,
            "kind": "run",
            "recipe": self.recipe,
            **trained,
            "parameters": parameters,
            "seconds": round(sum(launch.get("seconds", 0) for launch in launches), 1),
            **finish.speed(settings, timed["steps"], timed["seconds"], self.record["gpus"]),
            **{name: self.record[name] for name in ("versions", "git", "launches")},
            "hardware": {"gpus": self.record["gpus"], "world_size": settings.world_size, **finish.machine()},
            "validation_loss_untrained": self.record.get("validation_loss_untrained"),
            "losses": {name: curve[-1][2] if curve else None for name, curve in curves.items()},
        }
        write_json_whole(self.run / RUN_RECEIPT, receipt)
        return receipt
