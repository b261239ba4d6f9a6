"""What one sees while a recipe trains: a bar that moves from the first second, and one remark on saving."""

import math

from inheritune_lit.pretrain.watch import ENOUGH, FIRST_STEP, Progress, Waiting


class Bar:
    """A progress bar: what goes on before the first step, then the steps; and one remark on how much a kill would lose.

    Args:
        minutes: How many a kill may lose before the remark is made.
        save_interval: The recipe's, in steps.
    """

    def __init__(self, minutes: float = math.inf, save_interval: int | None = None) -> None:
        self._minutes, self._interval, self._seen, self._begun = minutes, save_interval, 0, False

    def __enter__(self) -> "Bar":
        from tqdm import tqdm

        self._bar = tqdm(desc="loading", unit="step", dynamic_ncols=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def _begin(self, step: int, steps: int) -> None:
        """Once: the clock starts with the first step, loading left out."""
        if not self._begun:
            self._bar.reset(steps)
            self._bar.initial = self._bar.n = self._bar.last_print_n = step
            self._begun = True

    def wait(self, waiting: Waiting) -> None:
        if waiting.doing == FIRST_STEP:
            self._begin(waiting.step, waiting.steps)
        if not self._seen and waiting.seconds_left is not None:
            self._bar.set_postfix_str(f"about {duration(waiting.seconds_left)} left", refresh=False)
        self._bar.set_description(waiting.doing)

    def __call__(self, progress: Progress) -> None:
        bar = self._bar
        self._begin(progress.step - 1, progress.steps)
        bar.set_description("training", refresh=False)
        validation = "" if progress.validation_loss is None else f", validation {progress.validation_loss:.3f}"
        bar.set_postfix_str(f"loss {progress.loss:.3f}{validation}", refresh=False)
        bar.update(progress.step - bar.n)
        self._seen += 1
        if self._seen == ENOUGH + 1 and (remark := saving_advice(progress, self._interval, self._minutes)):
            bar.write(remark)


def saving_advice(progress: Progress, save_interval: int | None, minutes: float) -> str | None:
    """What to say if a kill would lose more than so many minutes, by the step time that was measured."""
    if not progress.seconds_left or progress.step >= progress.steps:
        return None
    step = progress.seconds_left / (progress.steps - progress.step)  # seconds
    interval = min(save_interval or progress.steps, progress.steps)
    if interval * step <= 60 * minutes:
        return None
    return (
        f"A step takes {step:.2f} s: a kill may lose {interval * step / 60:,.0f} minutes. For {minutes:g} at most, "
        f"stop after the next checkpoint, write train.save_interval: {max(1, int(60 * minutes / step))} in the "
        "recipe, and give the same command again; or pass --save_on_signal, where the scheduler sends SIGTERM first."
    )


def duration(seconds: float) -> str:
    """3725 → 1 h 02 min"""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"
