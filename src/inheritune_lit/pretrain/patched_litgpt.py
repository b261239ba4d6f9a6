"""`litgpt pretrain` that saves when it is stopped.

    python -m inheritune_lit.pretrain.patched_litgpt pretrain --config run/recipe.yaml

Used only where that is wanted; without it, litGPT's own command is.
"""

import functools
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

SAVED = "Saved at a signal"


def main() -> None:
    import litgpt.__main__ as command
    import litgpt.pretrain as pretrain

    fit = pretrain.fit

    @functools.wraps(fit)
    def fitted(**arguments: Any) -> None:  # litGPT's main passes all of it by name
        iterations = arguments["train"].gradient_accumulation_iters(arguments["devices"], arguments["num_nodes"])
        fit(**arguments | {"train_dataloader": Stoppable(arguments, iterations)})

    pretrain.fit = fitted
    try:
        command.main()
    finally:
        _end_workers()


class Stoppable:
    """litGPT's training loader, which between two optimizer steps looks whether SIGTERM came, saves and ends the run.

    litGPT asks it for a micro-batch when its state is that of the checkpoints it saves. All ranks save or none: each
    asks all others once a step, as the signal reaches them at different times.
    """

    def __init__(self, arguments: dict[str, Any], iterations: int) -> None:
        self._loader, self._arguments, self._iterations = arguments["train_dataloader"], arguments, iterations
        self._asked = False
        signal.signal(signal.SIGTERM, self._ask)
        for loader in (arguments["train_dataloader"], arguments["val_dataloader"]):
            # a scheduler signals the workers too: one that died would end the run before it has saved
            getattr(loader, "_dataloader", loader).worker_init_fn = _ignore_sigterm

    def __len__(self) -> int:
        return len(self._loader)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def __iter__(self) -> Iterator[Any]:
        state = self._arguments["state"]
        first = state["iter_num"]
        for batch in self._loader:
            if state["iter_num"] % self._iterations == 0 and self._anyone_asked():
                # before its first step a launch has nothing to save: step 0 is no checkpoint, a resumed one is there
                self._exit(state, save=state["iter_num"] > first)
            yield batch

    def _anyone_asked(self) -> bool:
        import torch

        fabric = self._arguments["fabric"]
        if fabric.world_size == 1:
            return self._asked
        flag = torch.tensor(float(self._asked), device=fabric.device)
        return bool(fabric.all_reduce(flag, reduce_op="sum") > 0)

    def _exit(self, state: dict[str, Any], *, save: bool) -> None:
        from litgpt.pretrain import save_checkpoint

        fabric, out_dir = self._arguments["fabric"], Path(self._arguments["out_dir"])
        path = out_dir / f"step-{state['step_count']:08d}" / "lit_model.pth"
        if save:
            save_checkpoint(fabric, state, self._arguments["tokenizer_dir"], path)
            fabric.print(f"{SAVED}: {path}", flush=True)
        fabric.barrier()
        os._exit(128 + signal.SIGTERM)  # the loader's workers and loggers have nothing left to say


def _end_workers() -> None:
    """Ends the loaders' workers: Python would send them SIGTERM, which they ignore, and wait for ever."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler takes a worker's death for a failure
    for worker in multiprocessing.active_children():
        worker.kill()


def _ignore_sigterm(worker: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


if __name__ == "__main__":
    sys.argv[0] = "litgpt"
    main()
