"""The progress bar of a training: it moves from the first second, and says once how much a kill would lose."""

import math

from inheritune_lit.base.units import duration
from inheritune_lit.pretrain.watch import ENOUGH, FIRST_STEP, Progress


class Bar:
    """A progress bar to pass to `train` as on_progress: what goes on before the first step, then the steps.

    Args:
        name: What is trained, if one bar follows another.
        minutes: How many a kill may lose before a remark is made.
        save_interval: The recipe's, in steps.
    """

    def __init__(self, name: str = "", *, minutes: float = math.inf, save_interval: int | None = None) -> None:
        self._name, self._minutes, self._interval = name, minutes, save_interval
        self._seen, self._begun = 0, False

    def __enter__(self) -> "Bar":
        from tqdm import tqdm

        self._bar = tqdm(unit="step", dynamic_ncols=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, progress: Progress) -> None:
        bar, logged = self._bar, progress.loss is not None
        if not self._begun and (logged or progress.doing == FIRST_STEP):  # its clock leaves loading out
            bar.reset(progress.steps)
            bar.initial = bar.n = bar.last_print_n = progress.step - logged
            self._begun = True
        if logged:
            validation = "" if progress.validation_loss is None else f", validation {progress.validation_loss:.3f}"
            bar.set_postfix_str(f"loss {progress.loss:.3f}{validation}", refresh=False)
        elif not self._seen and progress.seconds_left is not None:
            bar.set_postfix_str(f"about {duration(progress.seconds_left)} left", refresh=False)
        bar.set_description(" ".join(filter(None, (self._name, progress.doing))), refresh=not logged)
        if logged:
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
