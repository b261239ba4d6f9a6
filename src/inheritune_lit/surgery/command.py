"""Surgery: a shorter litGPT checkpoint out of blocks of a source checkpoint, its embeddings, final norm and head.

`python -m inheritune_lit.surgery SOURCE_DIR --layers 13 --out_dir OUT_DIR` is step 1 of Inheritune (arXiv 2404.08634,
Algorithm 1), and `--start` makes the starts to compare it with. What the target is, `target` plans; only this module
writes files. Importing it imports neither torch nor litGPT.
"""

import shutil
from pathlib import Path
from typing import Any, Literal

from inheritune_lit import gpt2
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import write_json
from inheritune_lit.base.folders import refuse_to_replace, staging
from inheritune_lit.checkpoint.copy import copy_tensors
from inheritune_lit.checkpoint.folder import HF_CONFIG, WEIGHTS, copy_tokenizer
from inheritune_lit.checkpoint.hub import look_up
from inheritune_lit.checkpoint.receipt import is_done, write_receipt
from inheritune_lit.surgery.starts import Head, Start
from inheritune_lit.surgery.target import Plan, make_plan


def surgery(
    source_dir: Path,
    *,
    layers: str | None = None,
    out_dir: Path,
    start: Start = "inherit",
    target_dir: Path | None = None,
    head: Head = "target",
    seed: int = 42,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    check_finite: bool = True,
    fetch: bool = False,
    dry_run: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a shorter checkpoint: chosen blocks of a source with its embeddings, final norm and head.

    The result is a litGPT checkpoint folder that every litGPT command accepts, with a Hugging Face config.json that
    tells its true depth and a receipt, inheritance.json. `inheritune verify` checks a folder against its receipt.
    Given again with the same source and settings, the command finds its result whole and leaves it.

    Args:
        source_dir: The source, such as the paper's reference model: a folder with config.json and safetensors, as
            `hf download` brings it, called as litGPT calls the model; or a litGPT checkpoint folder. With --fetch, its
            name in the Hugging Face hub.
        layers: Which blocks of the source to keep: 13 (the first 13), 0-12 (inclusive), 0,2,4 (these), ::2 (every
            second), or a list of these, as in 0-10,22-25. For last, middle, every-other, the stackings and grow: the
            number of blocks of the result.
        out_dir: The folder to write. It appears when it is whole.
        start: inherit, or a start to compare it with: random (litGPT's own initialisation), attention, mlp or
            attention+mlp (only these of the blocks, the first two with the blocks' norms; the rest random), stacking
            (all blocks of SOURCE_DIR, a trained model of half the depth, twice), hybrid-stacking (the source's first
            half of --layers, twice), half-width (all blocks, half the channels and heads), last, middle, every-other
            (which blocks), grow (--target_dir with the source's next blocks).
        target_dir: For grow, the trained target that grows.
        head: For grow, whose final norm and head to keep: the trained target's or the source's. A token embedding that
            is tied to the head goes with it; one that isn't stays the trained target's.
        seed: Of what is random, as `litgpt pretrain --seed` takes it.
        dtype: Convert the weights to this type. Without it each tensor keeps its own; where there are several parents,
            or random weights (float32), the widest of their types.
        check_finite: Stop at a NaN or an infinity in a kept tensor. Off with --no-check_finite.
        fetch: SOURCE_DIR is ORG/NAME or ORG/NAME@REVISION in the Hugging Face hub. Its config.json, its tokenizer and
            the files that hold what is kept are fetched, all of one commit, which the receipt names.
        dry_run: Print what would be written, and write nothing.
        overwrite: Replace OUT_DIR if it exists.
    """
    source, headers = look_up(str(source_dir)) if fetch else (Path(source_dir), None)
    folders = [source, *([] if target_dir is None else [Path(target_dir)])]
    options: dict[str, Any] = {"start": start, "seed": seed, "target_dir": target_dir, "head": head}
    plan = make_plan(source, layers, dtype, headers=headers, **options)
    print(plan)
    if dry_run:
        return
    refuse_to_replace(Path(out_dir), *folders)
    if not overwrite and is_done(Path(out_dir), "surgery", {**plan.settings(), "check_finite": check_finite}):
        return
    with staging(Path(out_dir), overwrite=overwrite) as folder:
        free = shutil.disk_usage(folder).free
        if free < plan.bytes:
            raise InheritError(f"{out_dir} needs {plan.bytes:,} bytes, its disk has {free:,} free. Free some space.")
        for parent in plan.parents.values():
            parent.weights.fetch([copy.name for copy in plan.copies.values() if copy.weights is parent.weights])
        _write_configs(plan, folder)
        copy_tokenizer(plan.source_dir, folder)
        sha256 = {WEIGHTS: copy_tensors(plan.drawn(), folder / WEIGHTS, check_finite=check_finite)}
        write_receipt(folder, "surgery", {**plan.receipt(), "check_finite": check_finite}, sha256=sha256)
    print(f"Wrote {out_dir}")


def _write_configs(plan: Plan, folder: Path) -> None:
    from litgpt.utils import save_config

    save_config(plan.config, folder)
    if plan.hf_config is not None:
        write_json(folder / HF_CONFIG, plan.hf_config)
    elif not gpt2.is_gpt2(plan.source_config):  # a GPT-2's follows from litGPT's Config
        source = plan.source_dir / HF_CONFIG
        print(f"{source} is missing: the target has none either, and can't be exported to Hugging Face until it has.")
