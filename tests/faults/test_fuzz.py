"""Anything may lie in a file that we read; only our own errors come out.

Real files are damaged in two ways: their bytes (flipped, cut, doubled, replaced) and, for JSON, their values (another
type, a huge number, a missing key), which damaged bytes hardly ever reach. FUZZ_INPUTS says how many inputs there are
in all; `make test-faults` sets it to 100,000.
"""

import copy
import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.models import make_checkpoint, make_tokenizer, make_tokens

from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.receipt import check_files, read_receipt
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.data.inspect import document_lengths
from inheritune_lit.data.manifest import Manifest
from inheritune_lit.data.tokens import PackedTokens
from inheritune_lit.grow.ledger import Ledger
from inheritune_lit.recipes.listing import shipped
from inheritune_lit.reproduce.compare import compare
from inheritune_lit.reproduce.document import checksum, read_lock
from inheritune_lit.runs.folder import read_run
from inheritune_lit.surgery.command import surgery

INPUTS = int(os.environ.get("FUZZ_INPUTS", "3000"))
INSERTED = [b"\x00", b"\xff\xfe", b"NaN", b"{", b"]", b'"', b"1" * 5000, b"[" * 5000]
VALUES: list[Any] = [None, True, -1, 0, 2**63, 2**70, 1e308, float("nan"), "", "x", "../x", "/etc/passwd", [], {}, [[]]]


def damaged_bytes(content: bytes, chance: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data) + 1)
        length = chance.choice([1, 1, 2, 8, 64, len(data)])
        match chance.randrange(5):
            case 0 if place < len(data):
                data[place] ^= 1 << chance.randrange(8)
            case 1:
                del data[place : place + length]
            case 2:
                data[place:place] = data[place : place + length]
            case 3:
                data[place : place + length] = chance.randbytes(min(length, len(data) - place))
            case _:
                data[place:place] = chance.choice(INSERTED)
    return bytes(data)


def damaged_json(content: bytes, chance: random.Random) -> bytes:
    document = json.loads(content)
    for _ in range(chance.randint(1, 3)):
        places = list(_places(document))
        container, key = chance.choice(places)
        match chance.randrange(4):
            case 0:
                del container[key]
            case 1 if places:
                other, other_key = chance.choice(places)
                container[key] = copy.deepcopy(other[other_key])
            case _:
                container[key] = copy.deepcopy(chance.choice(VALUES))
        if not list(_places(document)):
            break
    return json.dumps(document).encode()


def _places(node: Any) -> Any:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(items):
        yield node, key
        yield from _places(value)


def attack(path: Path, read: Callable[[], Any], inputs: int, *kinds: Callable[[bytes, random.Random], bytes]) -> int:
    """Lets `read` read `inputs` damaged versions of a file; returns how many of them it refused."""
    whole, chance, refused = path.read_bytes(), random.Random(path.name), 0
    read()
    for i in range(inputs):
        content = kinds[i % len(kinds)](whole, chance)
        path.write_bytes(content)
        try:
            read()
        except InheritError:
            refused += 1
        except Exception as error:
            path.write_bytes(whole)
            raise AssertionError(f"{path.name}: {type(error).__name__}: {error}\n{content[:2000]!r}") from error
    path.write_bytes(whole)
    assert refused > inputs // 10  # the damage is real
    return refused


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    tokenizer = make_tokenizer(folder / "tokenizer")
    make_tokens(folder / "data", tokenizer, documents=6)
    make_checkpoint(folder / "reference")
    surgery(folder / "reference", layers="2", out_dir=folder / "target")
    (folder / "run/logs/csv/version_0").mkdir(parents=True)
    recipe = "train: {max_tokens: 640, global_batch_size: 4, max_seq_length: 16}\nmodel_config: {block_size: 32}\n"
    (folder / "run/recipe.yaml").write_text(recipe)
    (folder / "run/run.json").write_text(json.dumps({"format": 1, "kind": "run", "validation_loss_untrained": 5.0}))
    rows = ["learning_rate,loss,iter,step,total_tokens,val_loss"]
    rows += [f"0.1,{6 - i / 10},{i},{i - 1},{64 * i},{4.5 if i % 5 == 0 else ''}" for i in range(1, 11)]
    (folder / "run/logs/csv/version_0/metrics.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_manifests(files: Path) -> None:
    tokens = files / "data/tokens"

    def read() -> None:
        data = PackedTokens(tokens, num_workers=0)
        data.connect(max_seq_length=8)
        data.train_dataloader()
        document_lengths(data.manifest, "train")

    attack(tokens / "manifest.json", read, INPUTS // 3, damaged_bytes, damaged_json, damaged_json)


def test_shard_indexes(files: Path) -> None:
    manifest = Manifest(files / "data/tokens")
    index = next(path for path in manifest.folder.rglob("train/*.index") if path.stat().st_size)
    attack(index, lambda: document_lengths(manifest, "train"), INPUTS // 6, damaged_bytes)


def test_receipts(files: Path) -> None:
    target = files / "target"

    def read() -> None:
        check_files(target, read_receipt(target)["files"])

    attack(target / "inheritance.json", read, INPUTS // 6, damaged_bytes, damaged_json)


def test_runs(files: Path) -> None:
    run = files / "run"
    attack(run / "run.json", lambda: read_run(run).curves, INPUTS // 12, damaged_bytes, damaged_json)
    attack(run / "recipe.yaml", lambda: read_run(run).curves, INPUTS // 24, damaged_bytes)
    attack(run / "logs/csv/version_0/metrics.csv", lambda: read_run(run).curves, INPUTS // 24, damaged_bytes)


def test_ledgers(files: Path) -> None:
    identity = {"reference": "x", "step": 2}
    ledger = Ledger(files / "growth", identity)
    ledger.begin("n4", {"blocks": 4}, {"train": {"max_tokens": 10}}, {"start": "abc"})

    def read() -> None:
        Ledger(files / "growth", identity).begin("n4", {"blocks": 4}, {"train": {"max_tokens": 10}}, {"start": "abc"})

    attack(files / "growth/growth.json", read, INPUTS // 12, damaged_bytes, damaged_json)


def test_locks(tmp_path: Path) -> None:
    path = tmp_path / "demo.lock.yaml"
    path.write_bytes((shipped() / "demo.lock.yaml").read_bytes())
    found = yaml.safe_load(path.read_bytes())

    def stamped(content: bytes, chance: random.Random) -> bytes:
        document = json.loads(damaged_json(json.dumps(found).encode(), chance))
        return yaml.safe_dump(document | {"checksum": checksum(document)}).encode()

    attack(path, lambda: str(compare(read_lock(path), found)), INPUTS // 30, damaged_bytes, stamped, stamped)


def test_checkpoints(files: Path) -> None:
    """Names, shapes and places of the tensors, then the bytes of each."""
    path = files / "target/lit_model.pth"

    def read() -> None:
        weights = Weights(path)
        weights.fingerprint()
        buffer = memoryview(bytearray(2**16))
        for name in weights:
            weights.read(name, buffer)

    attack(path, read, INPUTS // 12, damaged_bytes)


def test_pickles(files: Path) -> None:
    """The pickle alone inside a whole archive: what a bit flip there can't be told from on the outside."""
    source, path = files / "target/lit_model.pth", files / "pickled.pth"
    with zipfile.ZipFile(source) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in entries if name.endswith("data.pkl"))
    chance = random.Random(0)
    for _ in range(INPUTS // 24):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for entry, content in entries.items():
                archive.writestr(entry, damaged_bytes(content, chance) if entry == name else content)
        try:
            Weights(path).fingerprint()
        except InheritError:
            continue


def test_the_attack_would_notice(tmp_path: Path) -> None:
    """The negative control: a reader that trusts its file is caught."""
    (tmp_path / "x.json").write_text('{"a": {"b": 1}}')
    with pytest.raises(AssertionError, match=r"x.json: (KeyError|TypeError|JSONDecodeError|UnicodeDecodeError)"):
        attack(
            tmp_path / "x.json", lambda: json.loads((tmp_path / "x.json").read_text())["a"]["b"] + 1, 50, damaged_json
        )
