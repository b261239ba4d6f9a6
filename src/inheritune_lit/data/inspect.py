"""`inheritune data inspect`: what is in a folder of token shards, and in what order training will see it.

Importing this module imports none of the heavy libraries: `--help` answers at once.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.text_table import aligned
from inheritune_lit.data.manifest import Manifest

if TYPE_CHECKING:
    import numpy as np

BAR = 40  # characters of the longest bar
SHOWN = 300  # characters of a decoded sample


def inspect(
    data_path: Path,
    *,
    tokenizer_dir: Path | None = None,
    samples: int = 2,
    steps: int = 1000,
    global_batch_size: int = 64,
    max_seq_length: int = 2048,
    seed: int = 42,
) -> None:
    """Show what is in a folder of token shards: domains, tokens, documents, their lengths, and the order of training.

    Args:
        data_path: A folder that `inheritune prepare` wrote.
        tokenizer_dir: The tokenizer's folder, to decode samples with; without it there are none.
        samples: Documents to decode of each domain, picked at random with the seed.
        steps: Show each domain's share in the first so many optimizer steps.
        global_batch_size: Windows an optimizer step takes, as in the recipe.
        max_seq_length: Tokens a window has as input, as in the recipe.
        seed: The recipe's data seed.
    """
    for name, value in {"samples": samples + 1, "steps": steps, "global_batch_size": global_batch_size}.items():
        if value < 1:
            raise InheritError(f"--{name} {value}: expected at least {0 if name == 'samples' else 1}.")
    manifest = Manifest(Path(data_path))
    manifest.check_files()
    print(f"{data_path}: {manifest.dtype} token ids of {manifest.tokenizer.get('file')}\n")
    print_domains(manifest)
    _print_lengths(manifest)
    _print_order(manifest, steps, global_batch_size, max_seq_length, seed)
    if tokenizer_dir is not None:
        _print_samples(manifest, Path(tokenizer_dir), samples, seed)


def print_domains(manifest: Manifest) -> None:
    """Documents and tokens by domain and split; with a budget, what was wanted too."""
    sampled = manifest.content.get("sampling", {})
    rows = [("domain", "split", "documents", "tokens", "share", "tokens/document", *(["wanted"] if sampled else []))]
    for split, entries in manifest.content["splits"].items():
        total = sum(entry["tokens"] for entry in entries) or 1
        for entry in entries:
            documents, tokens = entry["documents"], entry["tokens"]
            numbers = f"{documents:,}", f"{tokens:,}", f"{tokens / total:.2%}", f"{tokens / (documents or 1):,.0f}"
            wanted = f"{sampled[entry['domain']]['wanted']:,}" if sampled and split == "train" else ""
            rows.append((entry["domain"], split, *numbers, *([wanted] if sampled else [])))
    print("\n".join(aligned(rows, left=2)))


def document_lengths(manifest: Manifest, split: str) -> "np.ndarray":
    """Tokens of every document of a split, from the shards' .ds.index: where each one ends, little-endian uint64.

    Raises:
        InheritError: an index is missing or does not fit its shard.
    """
    import numpy as np

    lengths = [np.empty(0, np.int64)]
    for shard in manifest.splits[split].shards:
        path = manifest.folder / f"{shard.path}.index"
        try:
            ends = np.fromfile(path, dtype="<u8").astype(np.int64)
        except OSError as error:
            raise InheritError(f"Can't read {path}: {error}. Copy the folder again or prepare it again.") from error
        lengths.append(np.diff(ends, prepend=0))
        if int(lengths[-1].sum()) != shard.tokens or (lengths[-1] < 0).any():
            raise InheritError(f"{path} does not fit its shard of {shard.tokens:,} tokens. Prepare the data again.")
    return np.concatenate(lengths)


def _print_lengths(manifest: Manifest) -> None:
    import numpy as np

    lengths = document_lengths(manifest, "train")
    powers = np.bincount(np.ceil(np.log2(np.maximum(lengths, 1))).astype(int))
    print("\ntokens of a training document, up to")
    for power in range(int(np.flatnonzero(powers)[0]), len(powers)):
        count = int(powers[power])
        print(f"{2**power:>13,}  {count:>13,}  {'█' * round(BAR * count / powers.max())}".rstrip())


def domain_shares(
    manifest: Manifest, steps: int, global_batch_size: int, max_seq_length: int, seed: int
) -> dict[str, float]:
    """Share of each domain in the first optimizer steps, 0 to 1: a window belongs to the domain of its first token."""
    import numpy as np

    from inheritune_lit.data.order import epoch_order

    entries = manifest.content["splits"]["train"]
    windows = manifest.splits["train"].windows(max_seq_length)
    if windows < 1:
        raise InheritError(f"{manifest.folder} has no training window of {max_seq_length + 1:,} tokens.")
    taken = epoch_order(windows, seed, 0)[: steps * global_batch_size]
    ends = np.cumsum([entry["tokens"] for entry in entries])
    domains = np.searchsorted(ends, taken.astype(np.int64) * max_seq_length, side="right")
    counts = np.bincount(domains, minlength=len(entries)) / len(taken)
    return {entry["domain"]: float(count) for entry, count in zip(entries, counts, strict=True)}


def _print_order(manifest: Manifest, steps: int, global_batch_size: int, max_seq_length: int, seed: int) -> None:
    epoch = manifest.splits["train"].windows(max_seq_length) / global_batch_size
    marks = sorted(
        {mark for mark in (1, 10, 100, 1000, 10000) if mark < min(steps, epoch)} | {min(steps, math.ceil(epoch))}
    )
    columns = [domain_shares(manifest, mark, global_batch_size, max_seq_length, seed) for mark in marks]
    print(f"\nshare of each domain in the first optimizer steps (seed {seed}); an epoch is {epoch:,.1f} steps")
    rows = [("domain", *(f"{mark:,}" for mark in marks), "all")]
    total = manifest.splits["train"].tokens
    for entry in manifest.content["splits"]["train"]:
        shares = [f"{column[entry['domain']]:.2%}" for column in columns]
        rows.append((entry["domain"], *shares, f"{entry['tokens'] / total:.2%}"))
    print("", *aligned(rows), sep="\n")


def _print_samples(manifest: Manifest, tokenizer_dir: Path, samples: int, seed: int) -> None:
    import numpy as np
    import torch

    from inheritune_lit.data.encoding import identity
    from inheritune_lit.data.tokenizer import Tokenizer

    tokenizer = Tokenizer(tokenizer_dir)
    if identity(tokenizer) != manifest.tokenizer["identity"]:
        raise InheritError(f"{tokenizer_dir} is not the tokenizer of {manifest.folder}: its text would be nonsense.")
    generator = np.random.default_rng(seed)
    dtype = np.dtype(manifest.stored)
    for entry in manifest.content["splits"]["train"]:
        filled = [shard for shard in entry["shards"] if shard["tokens"]]
        for _ in range(samples if filled else 0):
            shard = filled[generator.integers(len(filled))]
            ends = np.fromfile(manifest.folder / f"{shard['path']}.index", dtype="<u8")
            document = int(generator.integers(len(ends)))
            start, end = int(ends[document - 1]) if document else 0, int(ends[document])
            tokens = np.fromfile(manifest.folder / shard["path"], dtype, end - start, offset=start * dtype.itemsize)
            text = tokenizer.decode(torch.from_numpy(tokens[:SHOWN].astype(np.int64)))
            more = "…" if len(text) > SHOWN or len(tokens) > SHOWN else ""
            print(f"\n{entry['domain']}, document {document} of {shard['path']}, {end - start:,} tokens:")
            print(f"  {text[:SHOWN]!r}{more}")


COMMANDS = {"inspect": inspect}
