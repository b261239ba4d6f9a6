"""The tensors of a Hugging Face folder under litGPT's names, without a conversion.

litGPT's converter is run over the numbers of the tensors' rows, which tells for each of litGPT's tensors where its rows
lie in the safetensors files.
"""

import hashlib
import tempfile
from bisect import bisect
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from inheritune_lit import gpt2
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json
from inheritune_lit.base.piecewise import litgpt_file, piece_with
from inheritune_lit.checkpoint.folder import HF_CONFIG, refuse_code
from inheritune_lit.checkpoint.hub import Headers, fetch, snapshot_of
from inheritune_lit.checkpoint.hugging_face import EMBEDDING, HEAD, language_of, safetensors_header, weight_files
from inheritune_lit.checkpoint.weights import Weights, fill

if TYPE_CHECKING:
    import torch
    from litgpt.config import Config

SAMPLE = 2**12  # bytes at the start of each part of a tensor, which a fingerprint knows
TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""safetensors' names of the types that litGPT's models hold → torch's"""


class Part(NamedTuple):
    """Bytes that follow each other in a safetensors file, counted from those of its first tensor."""

    file: str
    start: int
    size: int


class _Stored(NamedTuple):
    """A tensor in a safetensors file. The rows of all of them are numbered, with a gap between two tensors."""

    name: str
    file: str
    kind: str
    """safetensors' name of its type"""
    shape: tuple[int, ...]
    start: int
    """Where its bytes begin, counted from those of the file's first tensor"""
    stop: int
    first: int
    """Its first row's number"""

    def numbers(self) -> "torch.Tensor":
        """A tensor like this one but one value wide, which holds the numbers of its rows."""
        import torch

        numbers = torch.arange(self.first, self.first + self.shape[0], dtype=torch.int32)
        return numbers.view(-1, *[1] * len(self.shape[1:]))

    def part(self, number: int, count: int) -> Part:
        """The bytes of `count` rows, the first of which has this number."""
        row = (self.stop - self.start) // self.shape[0]
        return Part(self.file, self.start + (number - self.first) * row, count * row)


class Safetensors(Weights):
    """The tensors of a Hugging Face folder, named and packed as by litGPT's converter; one is read when it is used.

    Such files have no checksums: what is read is compared with nothing.

    Raises:
        InheritError: a file is missing or damaged, config.json or the index contradicts the files, or litGPT's
            converter does not know a tensor.
    """

    def __init__(self, folder: Path, config: "Config", headers: Headers | None = None) -> None:
        refuse_code(folder)
        self.path, self.headers = folder, headers
        self._tensors: dict[str, torch.Tensor] = {}
        self._parts: dict[str, tuple[Part, ...]] = {}
        self._begins: dict[str, int] = {}
        """File → where its tensors' bytes begin"""
        self._across: set[str] = set()
        """What lies there transposed"""
        stored: list[_Stored] = []
        for file, header in sorted((headers or _headers(folder)).items()):
            for name, entry in header.items():
                first = stored[-1].first + stored[-1].shape[0] + 1 if stored else 0
                shape, (start, stop) = tuple(entry["shape"]) or (1,), entry["data_offsets"]
                stored.append(_Stored(name, file, entry["dtype"], shape, start, stop, first))
        self._stated = read_json(folder / HF_CONFIG, "Hugging Face config")
        numbers = {one.name: one.numbers() for one in stored}
        for name, made in _converted(numbers, config, self._stated, folder).items():
            self._place(name, made, stored)
        self._check_tied(read=not headers)

    def _place(self, name: str, made: "torch.Tensor", stored: Sequence[_Stored]) -> None:
        """Notes where a tensor lies, of which litGPT's converter made `made` out of the numbers of rows."""
        import torch

        flat = made.flatten()
        breaks = (flat.diff() != 1).nonzero().flatten() + 1
        ends = [0, *breaks.tolist(), len(flat)] if len(flat) else []
        runs = [(int(flat[start]), stop - start) for start, stop in pairwise(ends)]
        givers = [stored[bisect(stored, number, key=lambda one: one.first) - 1] for number, _ in runs]
        kinds = {(giver.kind, giver.shape[1:]) for giver in givers}
        kind, rest = next(iter(kinds), ("", ()))
        if len(kinds) != 1 or kind not in TYPES:
            found = ", ".join(f"{one.name} {one.kind} {[*one.shape]}" for one in dict.fromkeys(givers)) or "no values"
            raise InheritError(
                f"{self.path} can't give litGPT's {name}: expected one of the types "
                f"{', '.join(TYPES)} and rows of one length, got {found}. Quantised weights have to be undone first."
            )
        shape = (len(flat), *rest)
        if made.ndim == 2 and made.shape[0] == 1 < made.shape[1]:
            self._across.add(name)
            shape = shape[::-1]
        self._tensors[name] = torch.empty(shape, dtype=getattr(torch, TYPES[kind]), device="meta")
        self._parts[name] = tuple(giver.part(*run) for giver, run in zip(givers, runs, strict=True))

    def _check_tied(self, *, read: bool) -> None:
        """Head and token embedding are one tensor or two, as config.json says; what they hold is there to be read.

        Raises:
            InheritError: they are not.
        """
        import torch

        tied = {**language_of(self._stated), **self._stated}.get("tie_word_embeddings")
        if tied is None or HEAD not in self:
            return
        one = self.identity(HEAD) == self.identity(EMBEDDING)
        if one and not tied:
            raise InheritError(
                f"{self.path} holds no head, and its {HF_CONFIG} says tie_word_embeddings: false, so that it is "
                "not the token embedding either: the model is not whole. Fetch it again."
            )
        if tied and not one and read and not torch.equal(self[HEAD], self[EMBEDDING]):
            raise InheritError(
                f"{self.path} holds a head that is not its token embedding, and its {HF_CONFIG} says "
                "tie_word_embeddings: true, so that transformers would ignore it. Correct the one that is wrong."
            )

    def __getitem__(self, name: str) -> "torch.Tensor":
        return self.read(name, memoryview(bytearray(self.size(name))))

    def read(self, name: str, buffer: memoryview, *, compare: bool = True) -> "torch.Tensor":
        """The tensor as a view of `buffer`, filled from the files; there is no checksum to compare.

        Raises:
            InheritError: a file can't be read, or ended early.
        """
        import torch

        place = 0
        for part in self._parts[name]:
            self._fill(buffer[place : place + part.size], part)
            place += part.size
        layout = self._tensors[name]
        values = torch.frombuffer(buffer, dtype=torch.uint8, count=place).view(layout.dtype)
        return values.view(layout.shape[::-1]).t() if name in self._across else values.view(layout.shape)

    def _fill(self, buffer: memoryview, part: Part) -> None:
        if part.file not in self._begins:
            fill(size := memoryview(bytearray(8)), self.path / part.file, 0)
            self._begins[part.file] = 8 + int.from_bytes(size, "little")
        fill(buffer, self.path / part.file, self._begins[part.file] + part.start)

    def check(self) -> None:
        """Nothing: a tensor is read into memory when it is used, not mapped, and has no checksum."""

    def fetch(self, names: Collection[str]) -> None:
        """Brings the files that hold these tensors, if they lie in the hub.

        Raises:
            InheritError: the hub does not give them, or config.json says otherwise of the head.
        """
        if self.headers:
            fetch(self.path, {part.file for name in names for part in self._parts[name]})
            self._check_tied(read=HEAD in names)

    def size(self, name: str) -> int:
        return sum(part.size for part in self._parts[name])

    def is_plain(self, name: str) -> bool:
        """No: what was written can't be compared with a checksum of what was read."""
        return False

    def identity(self, name: str) -> tuple[object, ...]:
        return self._parts[name]

    def fingerprint(self) -> str:
        """SHA-256 over the names, dtypes and shapes of litGPT's tensors and how their bytes begin, after `hf-`.

        Says which model this is without reading it all, however it is cut into files. What the hub has yet to give is
        said by its commit.
        """
        if self.headers and (known := snapshot_of(self.path)):
            return f"hub-{known[1]}"
        digest = hashlib.sha256()
        for name in sorted(self):
            layout, parts = self._tensors[name], self._parts[name]
            digest.update(f"{name} {layout.dtype} {tuple(layout.shape)}\n".encode())
            for part in parts:
                start = memoryview(bytearray(min(SAMPLE, part.size)))
                self._fill(start, part)
                digest.update(start)
        return f"hf-{digest.hexdigest()}"


def _headers(folder: Path) -> Headers:
    """What the safetensors files of a Hugging Face folder's model hold.

    Raises:
        InheritError: there are none, or they are not what the index says.
    """
    files = weight_files(folder)
    if files[0].suffix != ".safetensors":
        raise InheritError(
            f"{folder} holds pickles ({files[0].name}), which could run code. Have transformers, which opens them "
            "with weights_only=True, write safetensors beside them:\n"
            "  from transformers import AutoModelForCausalLM\n"
            f"  AutoModelForCausalLM.from_pretrained({str(folder)!r}, dtype='auto').save_pretrained({str(folder)!r})"
        )
    return {path.name: safetensors_header(path) for path in files}


def _converted(
    numbers: "dict[str, torch.Tensor]", config: "Config", stated: Mapping[str, Any], folder: Path
) -> "Mapping[str, torch.Tensor]":
    """What litGPT's converter makes of tensors under Hugging Face's names; ours, of a GPT-2's.

    Raises:
        InheritError: it does not know a name.
    """
    try:
        if gpt2.is_gpt2(config):
            return gpt2.from_hugging_face(numbers, stated)[0]
        # by its name, litGPT takes Gemma-2b for a Gemma 2
        made = _by_litgpt(numbers, config, "Gemma-7b" if stated.get("model_type") == "gemma" else config.name)
        return {HEAD: made[EMBEDDING], **made}  # Falcon's converter leaves out a tied head
    except InheritError:
        raise
    except Exception as error:  # KeyError for a name that it has not; whatever shapes that do not fit lead to
        raise InheritError(
            f"litGPT's converter does not make a {config.name} of {folder}: {type(error).__name__}: {error}. Is it "
            "another model than its name says?"
        ) from error


def _by_litgpt(tensors: "dict[str, torch.Tensor]", config: "Config", name: str) -> "dict[str, torch.Tensor]":
    """litGPT's convert_hf_checkpoint, which chooses a converter by name, given tensors instead of files."""
    state: dict[str, torch.Tensor] = {}

    def nothing(*_: object, **__: object) -> None: ...

    given = {
        "Config": SimpleNamespace(from_name=lambda _: config),
        "extend_checkpoint_dir": lambda folder: folder,
        "incremental_save": lambda _: nullcontext(SimpleNamespace(store_early=lambda t: t, save=state.update)),
        "lazy_load": nothing,
        "load_param": lambda tensor, *_, **__: tensor,
        "load_safetensors": lambda _: tensors,
        **dict.fromkeys(("save_config", "pprint", "print"), nothing),
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.safetensors").touch()
        convert = piece_with(given, litgpt_file("scripts/convert_hf_checkpoint.py"), "convert_hf_checkpoint")
        convert(Path(folder), model_name=name, debug_mode=True)
    return state
