"""Which blocks: the little language of `--layers`."""

import re

from inheritune_lit.commit import InheritError

_FORMS = "13 (the first 13), 0-12 (inclusive), 0,2,4 (these), ::2 (every second), or a list such as 0-10,22-25"


def parse_layers(layers: str, n_layer: int) -> list[int]:
    """Block numbers of a reference with `n_layer` blocks, in the order given.

    `13` alone is the first 13 blocks; inside a list a number is that block. A slice `start:stop:step` is Python's.

    Raises:
        InheritError: not one of these forms, empty, out of range, or a block named twice.
    """
    layers = str(layers).strip()
    if re.fullmatch(r"\d+", layers):
        count = int(layers)
        if not 1 <= count <= n_layer:
            raise _error(layers, n_layer, f"it asks for the first {count}")
        return list(range(count))
    blocks: list[int] = []
    for part in layers.split(","):
        blocks += _parse_part(part.strip(), layers, n_layer)
    repeated = sorted({block for block in blocks if blocks.count(block) > 1})
    if repeated:
        raise _error(layers, n_layer, f"it names block {', '.join(map(str, repeated))} more than once")
    if not blocks:
        raise _error(layers, n_layer, "it names no block")
    return blocks


def _parse_part(part: str, layers: str, n_layer: int) -> list[int]:
    if match := re.fullmatch(r"(\d+)(?:-(\d+))?", part):
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise _error(layers, n_layer, f"the range {part} runs backwards")
        if last >= n_layer:
            raise _error(layers, n_layer, f"there is no block {last}")
        return list(range(first, last + 1))
    if match := re.fullmatch(r"(\d*):(\d*)(?::(\d*))?", part):
        start, stop, step = (int(number) if number else None for number in match.groups())
        if step == 0:
            raise _error(layers, n_layer, "a stride of 0 goes nowhere")
        if max(start or 0, stop or 0) > n_layer:
            raise _error(layers, n_layer, f"{part} goes beyond the last block")
        return list(range(n_layer))[start:stop:step]
    raise _error(layers, n_layer, f"{part!r} is none of its forms: {_FORMS}")


def _error(layers: str, n_layer: int, problem: str) -> InheritError:
    return InheritError(
        f"--layers {layers}: {problem}. The reference has {n_layer} blocks, numbered 0 to {n_layer - 1}."
    )
