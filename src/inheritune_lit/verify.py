"""`inheritune verify`: is a checkpoint folder what its receipt says, and does it come from the source it names?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit import gpt2
from inheritune_lit.base.folders import InheritError, read_json, sha256_file
from inheritune_lit.checkpoint.copy import Part
from inheritune_lit.checkpoint.folder import (
    RECEIPT,
    WEIGHTS,
    check_names_and_shapes,
    expected_shapes,
    load_config,
    read_receipt,
)
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.surgery.origins import Giver, Origin, recorded
from inheritune_lit.surgery.starts import SUBSETS, half_width

if TYPE_CHECKING:
    import torch
    from litgpt.model import GPT


def verify(folder: Path, *, source: Path | None = None) -> None:
    """Check a checkpoint folder against its receipt and, with --source, against the reference it was made from.

    A folder that `inheritune export` wrote is opened by transformers in a new process besides: every tensor is there,
    none is left over, and the tokenizer is litGPT's.

    Arguments:
        folder: A folder that `inheritune surgery` or `inheritune export` wrote.
        source: The reference's folder. Every tensor is compared with the source's, and the target's logits with those
            of the reference run through the same blocks only: exactly equal, on the CPU, in the target's dtype. Of the
            starts that are more than blocks of a source (surgery's --start), the tensors that come from this folder
            are compared; for a grown target, this may be either parent. For an exported folder, the checkpoint that it
            was made from: logits and token ids are compared.
    """
    folder = Path(folder)
    receipt = read_receipt(folder)
    check_files(folder, receipt["files"])
    print(f"{folder}: {len(receipt['files'])} files are what {RECEIPT} says")
    if receipt.get("kind") == "export":
        from inheritune_lit.export.parity import verify_export

        verify_export(folder, receipt, None if source is None else Path(source))
        return
    if source is not None:
        verify_source(folder, receipt, Path(source))


def verify_source(folder: Path, receipt: Mapping[str, Any], source: Path) -> None:
    """Compares what surgery wrote with a parent: the tensors that come from it, and the logits if they can be.

    Raises:
        InheritError: they differ, or this is no parent of it.
    """
    if "blocks" not in receipt:
        made = receipt.get("command") or f"a {receipt.get('kind')}"
        raise InheritError(f"{folder} was not made by surgery, but by {made}: drop --source.")
    read_json(folder / RECEIPT, "receipt", ("source", "origins", "start"))
    target, reference = Weights(folder / WEIGHTS), Weights(source / WEIGHTS)
    check_names_and_shapes(target, load_config(folder), folder)
    check_names_and_shapes(reference, load_config(source), source)
    giver = _giver(folder, receipt, source, reference.fingerprint())
    origins = recorded(receipt["origins"], target)
    if receipt["start"] == "half-width":
        config = load_config(folder)
        origins = half_width(origins, expected_shapes(config), config)
    compared = {name: origin for name, origin in origins.items() if origin.giver == giver}
    compare_tensors(target, reference, compared)
    others = sorted({origin.giver for origin in origins.values()} - {giver})
    rest = f"; the other {len(target) - len(compared)} ({' and '.join(others)}) were not compared" if others else ""
    print(f"{folder}: {len(compared)} tensors equal those of {source}{rest}")
    if receipt["start"] not in SUBSETS:
        print(f"{folder}: its logits are not those of blocks of {source} ({receipt['start']}), and were not compared")
        return
    compare_logits(folder, source, receipt["blocks"])
    print(f"{folder}: logits equal those of {source} run through blocks {_ranges(receipt['blocks'])}")


def _giver(folder: Path, receipt: Mapping[str, Any], source: Path, fingerprint: str) -> Giver:
    """Which of the parents in a receipt a checkpoint is.

    Raises:
        InheritError: it is none of them.
    """
    parents: dict[Giver, Any] = {"source": receipt["source"], "target": receipt.get("target")}
    known = {key: parent for key, parent in parents.items() if parent and parent.get("fingerprint")}
    if not known:
        raise InheritError(
            f"{folder} is a {receipt['start']} start: no tensor of it comes from {source}, so there is nothing to "
            f"compare. Without --source, verify checks its files."
        )
    for key, parent in known.items():
        if parent["fingerprint"] == fingerprint:
            return key
    expected = " or ".join(
        f"{parent['fingerprint'][:16]}… ({key} {parent.get('name')!r})" for key, parent in known.items()
    )
    raise InheritError(
        f"{source} is not the source of {folder}: its fingerprint is {fingerprint[:16]}…, the receipt has {expected}."
    )


def check_files(folder: Path, files: dict[str, dict[str, object]]) -> None:
    """Sizes and SHA-256 of the files a receipt lists.

    Raises:
        InheritError: naming every file that is missing or differs.
    """
    problems = []
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif (size := path.stat().st_size) != entry["bytes"]:
            problems.append(f"{name} has {size:,} bytes, expected {entry['bytes']:,}")
        elif (digest := sha256_file(path)) != entry["sha256"]:
            problems.append(f"{name} has SHA-256 {digest[:16]}…, expected {str(entry['sha256'])[:16]}…")
    if problems:
        raise InheritError(f"{folder} is not what its {RECEIPT} says: {'; '.join(problems)}. Write it again.")


def compare_tensors(target: Weights, source: Weights, origins: Mapping[str, Origin]) -> None:
    """Target tensors equal the source's that they come from, cut alike and converted to the target's dtype.

    Raises:
        InheritError: naming the first tensor that differs.
    """
    import torch

    for name, origin in origins.items():
        if origin.name not in source:
            raise InheritError(f"{target.path}: {name} should be {origin.name} of {source.path}, which has none.")
        # bytes, not values: a NaN that was kept on purpose equals itself
        expected = Part(source, origin.name, target.dtype(name), origin.cut).of(source[origin.name])
        if not torch.equal(_bytes(target[name]), _bytes(expected)):
            raise InheritError(f"{target.path}: {name} differs from {origin.name} of {source.path}.")


def _bytes(tensor: "torch.Tensor") -> "torch.Tensor":
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8)


def compare_logits(folder: Path, source: Path, blocks: Sequence[int], tokens: int = 32) -> None:
    """The target's logits are exactly those of the reference with all other blocks taken out.

    The reference keeps its own Config, so this catches per-layer settings (sliding windows, rotary bases, dense or
    expert MLP) that went to the wrong block.

    Raises:
        InheritError: the logits differ.
    """
    import torch

    target, reference = load_model(folder), load_model(source)
    keep_only(reference, blocks)
    dtype = next(target.parameters()).dtype
    for parameter in reference.parameters():  # not .to(dtype), which would round the rotary tables too
        parameter.data = parameter.data.to(dtype)
    generator = torch.Generator().manual_seed(0)
    length = min(tokens, target.max_seq_length)
    idx = torch.randint(0, target.config.vocab_size, (2, length), generator=generator)
    with torch.inference_mode():
        ours, theirs = target(idx), reference(idx)
    if not torch.equal(ours, theirs):
        raise InheritError(
            f"The logits of {folder} differ from those of {source} run through blocks {_ranges(blocks)}, by up to "
            f"{(ours.float() - theirs.float()).abs().max():.3g}. One of the two model_config.yaml is wrong."
        )


def load_model(folder: Path) -> "GPT":
    """The model over the mapped weights of a checkpoint folder, in evaluation mode.

    Raises:
        InheritError: its tensors are not those of its model_config.yaml, or their bytes not those that were saved.
    """
    import torch

    config, weights = load_config(folder), Weights(folder / WEIGHTS)
    check_names_and_shapes(weights, config, folder)
    weights.check()
    with torch.device("meta"):
        model = gpt2.build(config)
    model.load_state_dict(dict(weights), assign=True)
    model.cos, model.sin = model.rope_cache(device=torch.device("cpu"))  # computed, not saved: still on meta
    return model.eval()


def keep_only(model: "GPT", blocks: Sequence[int]) -> None:
    """Takes all but the given blocks out of a model's forward pass, in place; the others keep their numbers.

    Raises:
        InheritError: the blocks are not in ascending order, so that the reference can't run through them so.
    """
    import torch

    if list(blocks) != sorted(blocks):
        raise InheritError(f"Blocks {_ranges(blocks)} are not in the reference's order: its logits can't be compared.")

    class Skip(torch.nn.Module):
        def forward(self, x: "torch.Tensor", *_: object) -> "torch.Tensor":
            return x

    for i in set(range(len(model.transformer.h))) - set(blocks):
        model.transformer.h[i] = Skip()


def _ranges(blocks: Sequence[int]) -> str:
    """[0, 1, 2, 5] → 0-2,5"""
    parts: list[list[int]] = []
    for block in blocks:
        if parts and block == parts[-1][-1] + 1:
            parts[-1].append(block)
        else:
            parts.append([block])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
