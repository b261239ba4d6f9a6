"""What benchmarks/starts.py reads: a reference's weights in 4 and 8 bits a value, and its text as tokens.

    python benchmarks/starts_data.py REFERENCE DOCUMENTS.jsonl NEW_TEXT… --folder DIR

REFERENCE is the demo's (demo/reference/SmolLM2-135M, after `litgpt convert_to_litgpt`): its float32 weights were
dequantised from Q4_1 and Q8_0, so that they go back without loss. DOCUMENTS.jsonl has a `text` and a `source` a line,
NEW_TEXT are text files of a kind that no arm is trained on. At most 9 MB a source; every fiftieth document is held out.
The files are small enough to be carried to a machine without a network.
"""

import argparse
import json
import lzma
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

PER_SOURCE, HELD_OUT = 9_000_000, 50
TOKENS = {"train": 33_000_000, "val": 262_144, "new": 131_072}  # at most


def packed(weight: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """A float32 matrix in `steps` bits a value, blocks of 32 with a float16 scale each, and at 4 bits an offset."""
    blocks = weight.reshape(-1, 32)
    if steps == 8:
        scale = (np.abs(blocks).max(1, keepdims=True) / 127).astype(np.float16)
        divisor = np.where(scale == 0, 1, scale).astype(np.float32)
        return {"q8": np.rint(blocks / divisor).clip(-127, 127).astype(np.int8), "scale": scale}
    low, high = blocks.min(1, keepdims=True), blocks.max(1, keepdims=True)
    scale = (high - low) / 15
    values = np.rint((blocks - low) / np.where(scale == 0, 1, scale)).astype(np.uint8).reshape(-1, 16, 2)
    return {
        "q4": values[..., 0] | values[..., 1] << 4,
        "scale": scale.astype(np.float16),
        "offset": low.astype(np.float16),
    }


def unpacked(parts: dict[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The float32 matrix of `packed`."""
    if "q8" in parts:
        values = parts["q8"].astype(np.float32) * parts["scale"].astype(np.float32)
    else:
        nibbles = np.stack((parts["q4"] & 15, parts["q4"] >> 4), -1).reshape(-1, 32).astype(np.float32)
        values = nibbles * parts["scale"].astype(np.float32) + parts["offset"].astype(np.float32)
    return values.reshape(shape)


def pack_weights(reference: Path, folder: Path) -> None:
    """weights-0.npz.xz and -1: half of the tensors each; the largest error any of them has is printed."""
    import torch

    tensors = torch.load(reference / "lit_model.pth", mmap=True, weights_only=True)
    tensors = tensors.get("model", tensors)
    halves: list[dict[str, Any]] = [{}, {}]
    sizes, worst = [0, 0], 0.0
    for name, tensor in tensors.items():
        if name == "lm_head.weight" and torch.equal(tensor, tensors["transformer.wte.weight"]):
            continue
        weight, half = tensor.float().numpy(), int(sizes[1] < sizes[0])
        halves[half][f"{name}/shape"] = np.array(weight.shape)
        parts = {"f32": weight}
        if weight.ndim == 2:
            for bits in (4, 8):
                parts = packed(weight, bits)
                error = float(np.abs(unpacked(parts, weight.shape) - weight).max() / np.abs(weight).max())
                if error < 2e-3:
                    break
            worst = max(worst, error)
        halves[half] |= {f"{name}/{part}": values for part, values in parts.items()}
        sizes[half] += sum(values.nbytes for values in parts.values())
    for half, arrays in enumerate(halves):
        with lzma.open(folder / f"weights-{half}.npz.xz", "wb", preset=6) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    print(f"{len(tensors)} tensors, {sum(sizes) / 1e6:.0f} MB, largest error {worst:.1e} of a tensor's largest value")


def load_weights(folder: Path) -> dict[str, np.ndarray]:
    """What `pack_weights` wrote, as float32."""
    tensors: dict[str, np.ndarray] = {}
    for half in (0, 1):
        with lzma.open(folder / f"weights-{half}.npz.xz") as file:
            arrays = dict(np.load(file))
        for key in [key for key in arrays if key.endswith("/shape")]:
            name = key.removesuffix("/shape")
            parts = {
                part: arrays[f"{name}/{part}"]
                for part in ("q4", "q8", "scale", "offset", "f32")
                if f"{name}/{part}" in arrays
            }
            shape = tuple(int(size) for size in arrays[key])
            tensors[name] = parts["f32"] if "f32" in parts else unpacked(parts, shape)
    return tensors


def pack_text(reference: Path, documents: Path, new: list[Path], folder: Path) -> None:
    """train.npy.xz, val.npy.xz, new.npy.xz: uint16 token ids, the tokenizer's end of text after every document."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(reference / "tokenizer.json"))
    end = tokenizer.token_to_id(json.loads((reference / "tokenizer_config.json").read_text())["eos_token"])
    rows = [json.loads(line) for line in documents.open(encoding="utf-8")]
    random.Random(7).shuffle(rows)
    taken, texts = Counter[str](), []
    for row in rows:
        if taken[row["source"]] < PER_SOURCE:
            taken[row["source"]] += len(row["text"])
            texts.append(row["text"])
    splits = {
        "val": texts[::HELD_OUT],
        "train": [text for i, text in enumerate(texts) if i % HELD_OUT],
        "new": [path.read_text(encoding="utf-8", errors="ignore") for path in sorted(new)],
    }
    for name, chosen in splits.items():
        ids: list[np.ndarray] = []
        for i in range(0, len(chosen), 500):
            ids += [
                np.array([*found.ids, end], np.uint16)
                for found in tokenizer.encode_batch(chosen[i : i + 500], add_special_tokens=False)
            ]
        tokens = np.concatenate(ids)[: TOKENS[name] + 1]
        with lzma.open(folder / f"{name}.npy.xz", "wb", preset=6) as file:
            np.save(file, tokens)  # type: ignore[arg-type]
        print(f"{name}: {len(chosen)} documents, {len(tokens):,} tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("documents", type=Path)
    parser.add_argument("new", type=Path, nargs="*")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / ".starts")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    pack_text(args.reference, args.documents, args.new, args.folder)
    pack_weights(args.reference, args.folder)


if __name__ == "__main__":
    main()
