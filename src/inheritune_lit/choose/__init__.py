"""`inheritune choose`: which blocks of a reference to keep, found by training a few choices for a short while."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import sha256_file, write_json
from inheritune_lit.base.folders import refuse_to_replace, staging
from inheritune_lit.checkpoint.folder import find_checkpoint, load_config
from inheritune_lit.checkpoint.layers import slice_config
from inheritune_lit.checkpoint.receipt import inputs_of, is_done, write_receipt
from inheritune_lit.data.manifest import MANIFEST, Manifest

if TYPE_CHECKING:
    from litgpt.config import Config

    from inheritune_lit.choose.trial import Trial

FORMAT = 1  # of choice.json


def choose(
    reference: Path,
    *,
    data: Path,
    out_dir: Path,
    keep: int | None = None,
    max_parameters: float | None = None,
    max_memory: str | None = None,
    context: int = 2048,
    candidates: int = 5,
    steps: int = 40,
    learning_rate: float = 1e-3,
    max_seq_length: int | None = None,
    windows: int = 32,
    dry_run: bool = False,
    overwrite: bool = False,
) -> None:
    """Which blocks of a reference to keep: a few choices, each trained for a short while on the same batches.

    All ways to keep the first a and last b blocks, and some other kinds, are compared untrained. The paper's first n
    and the most promising others are trained for a quarter of the steps, the better half of them then again for all
    steps. The one with the lowest held-out loss wins, if its lead is more than twice its standard error. If the command
    is interrupted, repeat it: what was measured is not measured again.

    Args:
        reference: A checkpoint folder, litGPT's or Hugging Face's.
        data: Token shards of `inheritune prepare`, of the kind that you will train on.
        out_dir: The folder for choice.json, choice.png and surgery.yaml, a config for `inheritune surgery`.
        keep: How many blocks to keep.
        max_parameters: Instead of --keep: as many blocks as fit into so many parameters, such as 1.5e9.
        max_memory: Instead of --keep: as many blocks as fit into so much memory, such as 3GB, with bfloat16 weights and
            the key-value cache of one sequence.
        context: Tokens in that cache.
        candidates: How many choices to train, 3 to 6.
        steps: Optimizer steps of the last round, 1,024 tokens a step on a CPU and 32,768 on a GPU.
        learning_rate: Its peak, the same for all choices; for billions of parameters rather your recipe's, as 3e-4.
        max_seq_length: Tokens of a window; 256 on a CPU, 1,024 on a GPU, the model's context at most.
        windows: Held-out windows to measure on.
        dry_run: Say what would be done and about how long it takes.
        overwrite: Replace OUT_DIR if it exists.
    """
    from inheritune_lit.choose.search import search
    from inheritune_lit.choose.trial import Batch, Trial
    from inheritune_lit.surgery.parents import Parent

    reference, data, out_dir = find_checkpoint(Path(reference)), Path(data), Path(out_dir)
    _check(candidates, steps, windows, learning_rate)
    config = load_config(reference)
    parent = Parent.open(reference)
    batch = Batch.here(max_seq_length, config.block_size)
    n = _blocks_to_keep(config, keep, max_parameters, max_memory, context, tied=parent.tied)
    Manifest(data).check_files()
    trial = Trial(reference, data, batch, learning_rate, parent.tied)
    print(_intention(config, n, trial, candidates, steps), flush=True)
    if dry_run:
        return
    inputs = inputs_of(reference, parent.weights.fingerprint())
    inputs["manifest"] = sha256_file(data / MANIFEST)
    settings = {"keep": n, "candidates": candidates, "steps": steps, "learning_rate": learning_rate}
    settings |= {"max_seq_length": batch.max_seq_length, "windows": windows, "step_tokens": batch.tokens}
    made = {"choice_format": FORMAT, **settings, "inputs": inputs}
    refuse_to_replace(out_dir, reference, data)
    if not overwrite and is_done(out_dir, "choice", made):
        return
    with staging(out_dir, overwrite=overwrite, resume=True) as folder:
        choice = search(trial, n, folder, made)
        _write(choice, folder, reference, out_dir)
        write_receipt(folder, "choice", made)
    from inheritune_lit.choose.table import table

    print(f"\n{table(choice)}")
    print(f"\nCut it: inheritune surgery --config {out_dir / 'surgery.yaml'}")
    print(f"Figure: {out_dir / 'choice.png'}; all numbers: {out_dir / 'choice.json'}")


def _check(candidates: int, steps: int, windows: int, learning_rate: float) -> None:
    if not 3 <= candidates <= 6:
        raise InheritError(f"--candidates {candidates}: expected 3 to 6.")
    if steps < 8:
        raise InheritError(f"--steps {steps}: expected at least 8, as a first round is a quarter of them.")
    if windows < 2:
        raise InheritError(f"--windows {windows}: expected at least 2, for a standard error.")
    if not 0 < learning_rate < 1:
        raise InheritError(f"--learning_rate {learning_rate}: expected a number between 0 and 1, such as 1e-3.")


def _blocks_to_keep(
    config: "Config", keep: int | None, parameters: float | None, memory: str | None, context: int, *, tied: bool
) -> int:
    """The n of --keep, or the largest that meets the target.

    Raises:
        InheritError: not exactly one of them is given, or none of the reference's cuts meets it.
    """
    from inheritune_lit.plan.model import count_parameters

    depth = config.n_layer
    if (keep, parameters, memory).count(None) != 2:
        raise InheritError("Say how much to keep: one of --keep 13, --max_parameters 1.5e9 and --max_memory 3GB.")
    if keep is not None:
        if not 2 <= keep < depth:
            raise InheritError(f"--keep {keep}: expected 2 to {depth - 1}; the reference has {depth} blocks.")
        return keep
    limit, unit = (parameters, "parameters") if parameters is not None else (_bytes(str(memory)), "bytes")
    cache = 4 * (config.n_query_groups or config.n_head) * (config.head_size or 0) * context  # keys and values, 2 bytes
    size = 0.0
    for n in range(depth - 1, 1, -1):
        counted = count_parameters(slice_config(config, range(n)), tied=tied).total
        size = counted if unit == "parameters" else 2 * counted + n * cache
        if size <= limit:
            return n
    raise InheritError(
        f"Two blocks of the reference with its embedding and head take {size:,.0f} {unit}, more than the "
        f"{limit:,.0f} asked for. Take a smaller reference."
    )


def _bytes(text: str) -> float:
    match = re.fullmatch(r"\s*([\d.]+)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if not match or match[1].count(".") > 1:
        raise InheritError(f"--max_memory {text}: expected a size such as 3GB, 2.5GiB or 800MB.")
    power = "KMGT".find(match[2].upper()) + 1 if match[2] else 0
    return float(match[1]) * (1024 if match[3] else 1000) ** power


def _intention(config: "Config", n: int, trial: "Trial", candidates: int, steps: int) -> str:
    """What the search will do, and about how long its trainings take, by the speed of a matrix product here."""
    from inheritune_lit.base.units import duration
    from inheritune_lit.choose.search import rounds
    from inheritune_lit.choose.trial import flops_per_second
    from inheritune_lit.plan.model import count_parameters

    planned = rounds(candidates, steps)
    tokens = sum(count * length for count, length in planned) * trial.batch.tokens
    parameters = count_parameters(slice_config(config, range(n)), tied=trial.tied).total
    trainings = ", then ".join(f"{count} for {length} steps" for count, length in planned)
    about = duration(6 * parameters * tokens / flops_per_second())
    return (
        f"{n} of {config.n_layer} blocks of {config.name}, {parameters / 1e6:,.1f} M parameters. Choices trained: "
        f"{trainings}, of {trial.batch.tokens:,} tokens each: {tokens:,} tokens in all, about {about} here by the "
        "speed of a matrix product, and some seconds for each start."
    )


def _write(choice: dict[str, Any], folder: Path, reference: Path, out_dir: Path) -> None:
    import yaml

    from inheritune_lit.choose.figure import draw

    draw(choice, folder)
    write_json(folder / "choice.json", choice)
    target = out_dir.with_name(f"{out_dir.name}_start")
    settings = {"source_dir": str(reference), "layers": choice["winner"]["layers"], "out_dir": str(target)}
    (folder / "surgery.yaml").write_text(
        "# The blocks that `inheritune choose` found; choice.json says how.\n"
        + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
        encoding="utf-8",
    )
