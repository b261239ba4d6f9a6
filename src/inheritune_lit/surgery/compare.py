"""A target beside its source: tensors and logits, to the bit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json
from inheritune_lit.checkpoint.copy import TensorCopy
from inheritune_lit.checkpoint.folder import RECEIPT, expected_shapes
from inheritune_lit.checkpoint.layers import ranges
from inheritune_lit.checkpoint.model import keep_only, load_model
from inheritune_lit.checkpoint.opening import open_weights
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.surgery.half_width import halved_origins
from inheritune_lit.surgery.origins import Giver, Origin, recorded
from inheritune_lit.surgery.starts import RULES

if TYPE_CHECKING:
    import torch


def verify_source(folder: Path, receipt: Mapping[str, Any], source: Path) -> None:
    """Compares what surgery wrote with a parent: the tensors that come from it, and the logits if they can be.

    Raises:
        InheritError: they differ, or this is no parent of it.
    """
    if "blocks" not in receipt:
        made = receipt.get("command") or f"a {receipt.get('kind')}"
        raise InheritError(f"{folder} was not made by surgery, but by {made}: drop --source.")
    read_json(folder / RECEIPT, "receipt", ("source", "origins", "start"))
    (config, target), (_, given) = open_weights(folder), open_weights(source)
    giver = _giver(folder, receipt, source, given.fingerprint())
    origins = recorded(receipt["origins"], target)
    rule = next((rule for start, rule in RULES.items() if start == receipt["start"]), None)
    if rule is None:
        raise InheritError(f"{folder / RECEIPT} is damaged: no start is called {receipt['start']!r}. Write it again.")
    if rule.halves:
        origins = halved_origins(origins, expected_shapes(config), config)
    compared = {name: origin for name, origin in origins.items() if origin.giver == giver}
    compare_tensors(target, given, compared)
    others = sorted({origin.giver for origin in origins.values()} - {giver})
    rest = f"; the other {len(target) - len(compared)} ({' and '.join(others)}) were not compared" if others else ""
    print(f"{folder}: {len(compared)} tensors equal those of {source}{rest}")
    if not rule.is_subset:
        print(f"{folder}: its logits are not those of blocks of {source} ({receipt['start']}), and were not compared")
        return
    compare_logits(folder, source, receipt["blocks"])
    print(f"{folder}: logits equal those of {source} run through blocks {ranges(receipt['blocks'])}")


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
    for key, parent in known.items():
        if parent["fingerprint"].rpartition("-")[0] != fingerprint.rpartition("-")[0]:  # of another form
            return key  # the tensors decide
    expected = " or ".join(
        f"{parent['fingerprint'][:16]}… ({key} {parent.get('name')!r})" for key, parent in known.items()
    )
    raise InheritError(
        f"{source} is not the source of {folder}: its fingerprint is {fingerprint[:16]}…, the receipt has {expected}."
    )


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
        expected = TensorCopy(source, origin.name, target.layout(name).dtype, origin.cut).of(source[origin.name])
        if not torch.equal(_bytes(target[name]), _bytes(expected)):
            raise InheritError(f"{target.path}: {name} differs from {origin.name} of {source.path}.")


def _bytes(tensor: "torch.Tensor") -> "torch.Tensor":
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8)


def compare_logits(folder: Path, source: Path, blocks: Sequence[int], tokens: int = 32) -> None:
    """The target's logits are exactly those of the source with all other blocks taken out.

    The source keeps its own Config, so this catches per-layer settings (sliding windows, rotary bases, dense or
    expert MLP) that went to the wrong block.

    Raises:
        InheritError: the logits differ.
    """
    import torch

    target, whole = load_model(folder), load_model(source)
    keep_only(whole, blocks)
    dtype = next(target.parameters()).dtype
    for parameter in whole.parameters():  # not .to(dtype), which would round the rotary tables too
        parameter.data = parameter.data.to(dtype)
    generator = torch.Generator().manual_seed(0)
    length = min(tokens, target.max_seq_length)
    idx = torch.randint(0, target.config.vocab_size, (2, length), generator=generator)
    with torch.inference_mode():
        ours, theirs = target(idx), whole(idx)
    if not torch.equal(ours, theirs):
        raise InheritError(
            f"The logits of {folder} differ from those of {source} run through blocks {ranges(blocks)}, by up to "
            f"{(ours.float() - theirs.float()).abs().max():.3g}. One of the two model_config.yaml is wrong."
        )
