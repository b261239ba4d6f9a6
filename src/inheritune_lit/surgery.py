"""Surgery: a shorter litGPT checkpoint out of blocks of a reference checkpoint, its embeddings, final norm and head.

`python -m inheritune_lit.surgery SOURCE_DIR --layers 13 --out_dir OUT_DIR` is step 1 of Inheritune (arXiv 2404.08634,
Algorithm 1). The pure functions say what the target is; only `surgery` touches files. Importing this module imports
neither torch nor litGPT.
"""

import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inheritune_lit import gpt2
from inheritune_lit.checkpoint import (
    HF_CONFIG,
    MODEL_CONFIG,
    RECEIPT,
    TOKENIZER_FILES,
    WEIGHTS,
    Weights,
    check_names_and_shapes,
    load_config,
    versions,
)
from inheritune_lit.commit import InheritError, read_json, sha256_file, staging, write_json
from inheritune_lit.layers import parse_layers
from inheritune_lit.stream import copy_tensors, distinct

if TYPE_CHECKING:
    import torch
    from litgpt.config import Config

BLOCK = "transformer.h."


def inherited_names(names: Iterable[str], blocks: Sequence[int]) -> dict[str, str]:
    """Target tensor name → source tensor name: all that is not in a block, and the chosen blocks renumbered."""
    position = {block: i for i, block in enumerate(blocks)}
    kept = {}
    for name in names:
        if not name.startswith(BLOCK):
            kept[name] = name
            continue
        block, rest = name.removeprefix(BLOCK).split(".", 1)
        if int(block) in position:
            kept[f"{BLOCK}{position[int(block)]}.{rest}"] = name
    return kept


def slice_config(config: "Config", blocks: Sequence[int]) -> "Config":
    """The Config of the chosen blocks: what it says per layer is sliced with them.

    Raises:
        InheritError: dense and mixture-of-experts blocks would be mixed in an order that litGPT can't describe.
    """
    per_layer = {
        name: [getattr(config, name)[block] for block in blocks]
        for name in ("sliding_window_indices", "rope_indices")
        if getattr(config, name) is not None
    }
    dense = config.first_k_dense_replace
    if dense is not None:
        # litGPT: blocks below this number have a dense MLP, those from it on have experts
        kept_dense = sum(block < dense for block in blocks)
        if any(block >= dense for block in blocks[:kept_dense]):
            raise InheritError(
                f"--layers puts a mixture-of-experts block before a dense one (blocks 0-{dense - 1} of the reference "
                "are dense), which litGPT's first_k_dense_replace can't describe. Choose them in ascending order."
            )
        dense = kept_dense
    options = gpt2.slice_options(config, blocks) if gpt2.is_gpt2(config) else config.hf_config
    return replace(config, n_layer=len(blocks), first_k_dense_replace=dense, hf_config=options, **per_layer)


def slice_hf_config(hf_config: Mapping[str, Any], config: "Config", blocks: Sequence[int]) -> dict[str, Any]:
    """Hugging Face's config.json of the chosen blocks.

    Without the true depth, transformers would fill the missing blocks with random weights and only warn.

    Raises:
        InheritError: the depth it states is not the reference's.
    """
    if isinstance(hf_config.get("text_config"), dict):  # multimodal families nest the language model's
        return {**hf_config, "text_config": slice_hf_config(hf_config["text_config"], config, blocks)}
    sliced = dict(hf_config)
    depth_keys = [key for key in ("num_hidden_layers", "n_layer", "num_layers") if key in sliced]
    if not depth_keys or any(sliced[key] != config.n_layer for key in depth_keys):
        found = {key: sliced[key] for key in depth_keys}
        raise InheritError(f"The source's {HF_CONFIG} states depth {found or 'nowhere'}, expected {config.n_layer}.")
    sliced |= dict.fromkeys(depth_keys, len(blocks))
    for key, value in hf_config.items():
        if isinstance(value, list) and len(value) == config.n_layer and key.endswith(("_types", "_layers", "_pattern")):
            sliced[key] = [value[block] for block in blocks]
    if "layer_types" not in sliced and config.sliding_window_indices is not None:
        # a period ("every sixth block is global") does not survive a cut: say it block by block
        kinds = {0: "full_attention", 1: "sliding_attention"}
        sliced["layer_types"] = [kinds[config.sliding_window_indices[block]] for block in blocks]
    if isinstance(sliced.get("mlp_only_layers"), list):
        sliced["mlp_only_layers"] = [i for i, block in enumerate(blocks) if block in hf_config["mlp_only_layers"]]
    if sliced.get("first_k_dense_replace") is not None:
        sliced["first_k_dense_replace"] = sum(block < hf_config["first_k_dense_replace"] for block in blocks)
    if sliced.get("max_window_layers") is not None:
        sliced["max_window_layers"] = sum(block < hf_config["max_window_layers"] for block in blocks)
    return sliced


@dataclass(frozen=True)
class Plan:
    """What surgery will write, known from names and shapes alone."""

    source_dir: Path
    blocks: list[int]
    source_config: "Config"
    config: "Config"
    weights: Weights
    names: dict[str, str]
    """Target tensor name → source tensor name"""
    dtype: "torch.dtype | None"
    """What floating-point tensors are converted to; None keeps each one's own"""

    def target_dtype(self, target: str) -> "torch.dtype":
        own = self.weights.dtype(self.names[target])
        return self.dtype if self.dtype is not None and own.is_floating_point else own

    @property
    def distinct(self) -> list[str]:
        """One target name for each tensor that takes space."""
        return distinct(self.weights, self.names)

    @property
    def bytes(self) -> int:
        return sum(
            self.weights.numel(self.names[target]) * self.target_dtype(target).itemsize for target in self.distinct
        )

    def parameters(self, *, embeddings: bool = True) -> int:
        """Number of parameters; without embeddings, those of tokens and positions and the head are left out."""
        return sum(
            self.weights.numel(self.names[target])
            for target in self.distinct
            if embeddings or not target.startswith(("transformer.wte.", "transformer.wpe.", "lm_head."))
        )

    def __str__(self) -> str:
        dtypes = sorted({str(self.target_dtype(target)).removeprefix("torch.") for target in self.names})
        rows = {
            "source": f"{self.source_dir} ({self.source_config.name}, {self.source_config.n_layer} blocks)",
            "blocks": f"{len(self.blocks)}: {', '.join(map(str, self.blocks))}",
            "parameters": f"{self.parameters():,} ({self.parameters(embeddings=False):,} without embeddings and head)",
            "tensors": f"{len(self.names)} kept of {len(self.weights)}, {', '.join(dtypes)}",
            "bytes": f"{self.bytes:,} ({self.bytes / 2**30:.2f} GiB)",
        }
        return "\n".join(f"{key:<11} {value}" for key, value in rows.items())


def make_plan(source_dir: Path, layers: str, dtype: str | None) -> Plan:
    """Opens the source and decides what is kept; reads no weights.

    Raises:
        InheritError: the source is not a whole litGPT checkpoint, or `layers` does not fit it.
    """
    import torch

    if not source_dir.is_dir():
        raise InheritError(f"SOURCE_DIR {source_dir} is not a folder. `litgpt download` puts checkpoints there.")
    config = load_config(source_dir)
    blocks = parse_layers(layers, config.n_layer)
    weights = Weights(source_dir / WEIGHTS)
    check_names_and_shapes(weights, config, source_dir)
    return Plan(
        source_dir=source_dir,
        blocks=blocks,
        source_config=config,
        config=slice_config(config, blocks),
        weights=weights,
        names=inherited_names(weights, blocks),
        dtype=None if dtype is None else getattr(torch, dtype),
    )


def surgery(
    source_dir: Path,
    *,
    layers: str,
    out_dir: Path,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    check_finite: bool = True,
    dry_run: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a shorter checkpoint: chosen blocks of a reference with its embeddings, final norm and head.

    The result is a litGPT checkpoint folder that every litGPT command accepts, with a Hugging Face config.json that
    tells its true depth and a receipt, inheritance.json. `inheritune verify` checks a folder against its receipt.

    Arguments:
        source_dir: A litGPT checkpoint folder: downloaded, converted, or saved by `litgpt pretrain`.
        layers: Which blocks of the reference to keep: 13 (the first 13), 0-12 (inclusive), 0,2,4 (these), ::2 (every
            second), or a list of these, as in 0-10,22-25.
        out_dir: The folder to write. It appears when it is whole.
        dtype: Convert the weights to this type. Without it each tensor keeps its own.
        check_finite: Stop at a NaN or an infinity in a kept tensor. Off with --no-check_finite.
        dry_run: Print what would be written, and write nothing.
        overwrite: Replace OUT_DIR if it exists.
    """
    plan = make_plan(Path(source_dir), layers, dtype)
    print(plan)
    if dry_run:
        return
    if Path(out_dir).resolve() == plan.source_dir.resolve():
        raise InheritError(f"--out_dir {out_dir} is the source. Choose another folder.")
    with staging(Path(out_dir), overwrite=overwrite) as folder:
        free = shutil.disk_usage(folder).free
        if free < plan.bytes:
            raise InheritError(f"{out_dir} needs {plan.bytes:,} bytes, its disk has {free:,} free. Free some space.")
        write_target(plan, folder, check_finite=check_finite)
    print(f"Wrote {out_dir}")


def write_target(plan: Plan, folder: Path, *, check_finite: bool) -> None:
    """Writes the target's files into an empty folder, the receipt last."""
    _write_configs(plan, folder)
    for name in TOKENIZER_FILES:
        if (plan.source_dir / name).is_file():
            shutil.copyfile(plan.source_dir / name, folder / name)
    dtypes = {target: plan.target_dtype(target) for target in plan.names}
    weights_sha256 = copy_tensors(plan.weights, plan.names, dtypes, folder / WEIGHTS, check_finite=check_finite)
    receipt = {
        "format": 1,
        "kind": "surgery",
        "source": {
            "name": plan.source_dir.resolve().name,
            "n_layer": plan.source_config.n_layer,
            "fingerprint": plan.weights.fingerprint(),
        },
        "start": "inherit",
        "blocks": plan.blocks,
        "dtype": None if plan.dtype is None else str(plan.dtype).removeprefix("torch."),
        "seed": None,
        "parameters": plan.parameters(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": versions(),
        "files": {
            path.name: {
                "bytes": path.stat().st_size,
                "sha256": weights_sha256 if path.name == WEIGHTS else sha256_file(path),
            }
            for path in sorted(folder.iterdir())
        },
    }
    write_json(folder / RECEIPT, receipt)


def _write_configs(plan: Plan, folder: Path) -> None:
    import yaml

    with (folder / MODEL_CONFIG).open("w", encoding="utf-8") as file:
        yaml.dump(asdict(plan.config), file)
    source = plan.source_dir / HF_CONFIG
    if source.is_file():
        hf_config = slice_hf_config(read_json(source, "Hugging Face config"), plan.source_config, plan.blocks)
        write_json(folder / HF_CONFIG, hf_config)
    else:
        print(f"{source} is missing: the target has none either, and can't be exported to Hugging Face until it has.")


if __name__ == "__main__":
    from inheritune_lit.__main__ import run

    run(surgery, "python -m inheritune_lit.surgery")
