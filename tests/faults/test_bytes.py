"""Truncated files, flipped bits and hostile pickles: named, refused, never run; what they would have replaced stays."""

import functools
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.faults import Fault
from helpers.injecting import Malice, flip
from helpers.models import make_tokenizer, make_tokens
from helpers.small_runs import make_recipe

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import write_json
from inheritune_lit.checkpoint.folder import WEIGHTS
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.data import PackedTokens
from inheritune_lit.data.manifest import Manifest
from inheritune_lit.data.order import Windows
from inheritune_lit.grow.ledger import Ledger
from inheritune_lit.pretrain import resume, train
from inheritune_lit.pretrain.command import pretrain
from inheritune_lit.recipes.recipe import Recipe
from inheritune_lit.surgery.command import surgery
from inheritune_lit.verify import verify


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a start, token shards, and recipe.yaml for 20 steps."""
    folder = tmp_path_factory.mktemp("bytes")
    recipe = make_recipe(folder, 20) | {"out_dir": str(folder / "run")}
    (folder / "recipe.yaml").write_text(yaml.dump(recipe))
    return folder


@pytest.fixture
def recipe(shared: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((shared / "recipe.yaml").read_text()))


def refused(function: Callable[[], object]) -> str | None:
    """Our own error's text, or None if there was none; any other error is a failure."""
    try:
        function()
    except InheritError as error:
        return str(error)
    return None


def test_receipt_cut_or_flipped_anywhere(llama: Path, tmp_path: Path, fault: Fault) -> None:
    """No cut passes, no flip is a traceback; a flip of what verify compares never passes."""
    surgery(llama, layers="1", out_dir=tmp_path / "target")
    receipt = tmp_path / "target/inheritance.json"
    whole, chosen = receipt.read_bytes(), random.Random(5)
    weights = tmp_path / "target" / WEIGHTS
    for size in [0, 1, len(whole) - 3, *(chosen.randrange(len(whole) - 2) for _ in range(20))]:
        receipt.write_bytes(whole[:size])
        with fault(weights):
            assert refused(lambda: verify(tmp_path / "target")), f"cut to {size} bytes"
    hashes = json.loads(whole)["files"][WEIGHTS]["sha256"]
    compared = range(whole.index(hashes.encode()), whole.index(hashes.encode()) + 64)
    for position in [*(chosen.randrange(len(whole)) for _ in range(60)), *chosen.sample(compared, 8)]:
        receipt.write_bytes(whole)
        flip(receipt, position, 1 << chosen.randrange(7))
        with fault(weights):
            problem = refused(lambda: verify(tmp_path / "target", source=llama))
            assert problem or position not in compared
    for key in json.loads(whole):
        write_json(receipt, {name: value for name, value in json.loads(whole).items() if name != key})
        with fault(weights):
            refused(lambda: verify(tmp_path / "target", source=llama))


def test_manifest_cut_or_flipped_anywhere(shared: Path, tmp_path: Path, fault: Fault) -> None:
    shutil.copytree(shared / "tokens", tmp_path / "tokens")
    path, chosen = tmp_path / "tokens/manifest.json", random.Random(6)
    whole = path.read_bytes()
    tokens = Manifest(tmp_path / "tokens").splits["train"].tokens
    for size in [0, len(whole) - 3, *(chosen.randrange(len(whole) - 2) for _ in range(20))]:
        path.write_bytes(whole[:size])
        with fault(*path.parent.glob("*/*/*.ds")):
            assert refused(lambda: Manifest(tmp_path / "tokens")), f"cut to {size} bytes"
    for _ in range(200):
        path.write_bytes(whole)
        flip(path, chosen.randrange(len(whole)), 1 << chosen.randrange(7))

        def read() -> None:
            manifest = Manifest(tmp_path / "tokens")
            manifest.check_files()
            assert manifest.splits["train"].tokens == tokens

        with fault(*path.parent.glob("*/*/*.ds")):
            refused(read)


def test_manifest_that_changed_is_other_data_to_a_run(recipe: dict[str, Any], tmp_path: Path, fault: Fault) -> None:
    """Whatever a flip makes of it: a run that has begun does not go on with it."""
    from inheritune_lit.pretrain.record import check_same, parents

    tokens = Path(recipe["data"]["init_args"]["data_path"])
    shutil.copytree(tokens, tmp_path / "tokens")
    before = {"recipe": recipe, **parents(recipe)}
    with fault(tokens):
        flip(tmp_path / "tokens/manifest.json", 7)
        recipe["data"]["init_args"]["data_path"] = str(tmp_path / "tokens")
        with pytest.raises(InheritError, match=r"\n  data: [0-9a-f]{16}… before, [0-9a-f]{16}… now"):
            check_same(tmp_path, before, recipe, parents(recipe))


@pytest.mark.parametrize("dtype", ["uint32", "int16", "float32", 2, None])
def test_wrong_token_dtype(shared: Path, tmp_path: Path, fault: Fault, dtype: Any) -> None:
    """Shards of two bytes a token under a manifest that says otherwise."""
    shutil.copytree(shared / "tokens", tmp_path / "tokens")
    content = json.loads((tmp_path / "tokens/manifest.json").read_text())
    write_json(tmp_path / "tokens/manifest.json", content | {"dtype": dtype})
    data = PackedTokens(tmp_path / "tokens")
    with fault(*(tmp_path / "tokens").glob("*/*/*.ds")), pytest.raises(InheritError, match=r"dtype|uint32\)"):
        data.connect(batch_size=2, max_seq_length=16)


def test_shard_cut_while_it_is_read(shared: Path, tmp_path: Path, fault: Fault) -> None:
    """Cut after the check of sizes: windows that are still there are right, the others an error or never read."""
    shutil.copytree(shared / "tokens", tmp_path / "tokens")
    windows = Windows(Manifest(tmp_path / "tokens"), "train", 16)
    first = windows.__getitems__([0])
    shard = max((tmp_path / "tokens").glob("*/train/*.ds"), key=lambda path: path.stat().st_size)
    with fault(tmp_path / "tokens/manifest.json"):
        os.truncate(shard, 10)
        again = Windows(Manifest(tmp_path / "tokens"), "train", 16)
        problem = refused(lambda: again.__getitems__(range(len(again))))
        assert problem
        assert str(shard) in problem
    assert first.shape == (1, 17)


RECORDS = ("launch.json", "run.json")


@pytest.mark.parametrize("name", RECORDS)
def test_runs_record_cut_or_without_a_key(recipe: dict[str, Any], tmp_path: Path, fault: Fault, name: str) -> None:
    """Nothing is trained, nothing is started over, and the checkpoints stay."""
    from inheritune_lit.pretrain.record import parents

    run = tmp_path / "run"
    (run / "step-00000010").mkdir(parents=True)
    (run / "step-00000010" / WEIGHTS).write_bytes(b"weeks of work")
    frozen = {**recipe, "out_dir": str(run), "resume": False}
    record = {"format": 1, "kind": "launch", "recipe": frozen, **parents(recipe), "launches": []}
    write_json(run / name, record)
    whole = (run / name).read_bytes()
    for size in range(0, len(whole) - 2, len(whole) // 10):
        (run / name).write_bytes(whole[:size])
        with fault(run / "step-00000010"), pytest.raises(InheritError, match=f"Can't read .*{name}"):
            train(recipe, run)
    for key in ("recipe", "start", "data", *(["launches"] if name == "launch.json" else [])):
        write_json(run / name, {k: v for k, v in record.items() if k != key})
        with (
            fault(run / "step-00000010"),
            pytest.raises(InheritError, match=f"{name} is damaged: expected the recipe, start, data and launches"),
        ):
            train(recipe, run)


def test_growths_ledger_cut_or_without_a_key(tmp_path: Path, fault: Fault) -> None:
    ledger = Ledger(tmp_path, {"tolerance": 0.0})
    ledger.begin("n2", {"blocks": 2}, {"train": {}}, {"data": "ab"})
    whole = ledger.path.read_bytes()
    (tmp_path / "n2").mkdir()
    (tmp_path / "n2" / WEIGHTS).write_bytes(b"weeks of work")
    for size in range(0, len(whole) - 2, len(whole) // 10):
        ledger.path.write_bytes(whole[:size])
        with fault(tmp_path / "n2"), pytest.raises(InheritError, match="Can't read the growth's ledger"):
            Ledger(tmp_path, {"tolerance": 0.0})
    trained = {"start": "inherit", "parameters": 9, "steps": 4, "seconds": 1.5}
    results = {"fingerprint": "cd", "validation_loss": 2.5, "stderr": None, "per_window": [2.0, 3.0]}
    ledger.begin("reference", {"start": "given", "blocks": 4}, {}, {"data": "ab"})
    ledger.finish("reference", results)
    ledger.finish("n2", {**trained, **results})
    whole = ledger.path.read_bytes()
    needed = [f"stages.reference.{key}" for key in ("state", "blocks", "start", "parents", *results)]
    for key in ("settings", "stages", *needed, *(f"stages.n2.{key}" for key in (*trained, *results))):
        for wrong in ("nothing", [], float("nan")):
            content = json.loads(whole)
            *above, last = key.split(".")
            within = functools.reduce(dict.__getitem__, above, content)
            within[last] = wrong
            if wrong == "nothing":
                del within[last]
            write_json(ledger.path, content)
            with (
                fault(tmp_path / "n2"),
                pytest.raises(InheritError, match=f"is damaged: {key} is missing, or not what"),
            ):
                Ledger(tmp_path, {"tolerance": 0.0})
    ledger.path.write_bytes(whole)
    Ledger(tmp_path, {"tolerance": 0.0})


def hostile(path: Path, sentinel: Path, how: str) -> None:
    content: dict[str, Any] = {"model": {"a": torch.zeros(2)}, "optimizer": {"state": Malice(sentinel)}}
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "zip":
        torch.save(content, path)
    elif how == "legacy":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))


HOW = ("zip", "legacy", "bare")


def test_the_hostile_pickle_is_hostile(tmp_path: Path) -> None:
    """Negative control: opened as it should not be, it runs."""
    hostile(tmp_path / "evil", tmp_path / "ran", "zip")
    torch.load(tmp_path / "evil", weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("command", ["surgery", "verify", "resume", "start", "hugging face"])
def test_hostile_pickle(
    recipe: dict[str, Any], llama: Path, tmp_path: Path, fault: Fault, command: str, how: str
) -> None:
    """As a reference, as a target, as a checkpoint to go on from, as a start, as pytorch_model.bin."""
    folder, sentinel = tmp_path / "evil", tmp_path / "ran"
    shutil.copytree(llama, folder)
    hostile(folder / WEIGHTS, sentinel, how)
    (tmp_path / "run").mkdir()

    def run() -> None:
        if command == "surgery":
            surgery(folder, layers="1", out_dir=tmp_path / "out")
        elif command == "verify":
            Weights(folder / WEIGHTS).fingerprint()
        elif command == "resume":
            hostile(tmp_path / "run/step-00000010" / WEIGHTS, sentinel, how)
            if resume.newest(tmp_path / "run", Recipe.of(recipe).config, recipe["train"], 20) is None:
                raise InheritError("set aside")
        elif command == "start":
            train(recipe | {"initial_checkpoint_dir": str(folder)}, tmp_path / "run")
        else:
            hostile(folder / "pytorch_model.bin", sentinel, how)
            (folder / "config.json").write_text('{"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 2}')
            (folder / WEIGHTS).unlink()
            surgery(folder, layers="1", out_dir=tmp_path / "out")

    with fault(llama):
        assert refused(run)
    assert not sentinel.exists(), "it ran"
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "run/final").exists()


def test_hostile_start_is_found_before_anything_begins(
    shared: Path, tmp_path: Path, fault: Fault, capsys: pytest.CaptureFixture[str]
) -> None:
    """`inheritune pretrain`: among the preflight's findings."""
    recipe = yaml.safe_load((shared / "recipe.yaml").read_text())
    shutil.copytree(recipe["initial_checkpoint_dir"], tmp_path / "evil")
    hostile(tmp_path / "evil" / WEIGHTS, tmp_path / "ran", "zip")
    recipe |= {"initial_checkpoint_dir": str(tmp_path / "evil"), "out_dir": str(tmp_path / "run")}
    (tmp_path / "recipe.yaml").write_text(yaml.dump(recipe))
    with fault(shared / "tokens"), pytest.raises(SystemExit):
        pretrain(tmp_path / "recipe.yaml")
    printed = capsys.readouterr().out
    assert "could run code" in printed
    assert printed.endswith("Nothing was started.\n")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "run").exists()


def test_hostile_configuration(llama: Path, tmp_path: Path, fault: Fault) -> None:
    """A model_config.yaml that asks YAML to run something."""
    shutil.copytree(llama, tmp_path / "evil")
    evil = f"!!python/object/apply:os.system ['touch {tmp_path}/ran']"
    text = (llama / "model_config.yaml").read_text()
    (tmp_path / "evil/model_config.yaml").write_text(f"{text}\nname: {evil}\n")
    with fault(llama), pytest.raises(InheritError, match="does not accept"):
        surgery(tmp_path / "evil", layers="1", out_dir=tmp_path / "target")
    assert not (tmp_path / "ran").exists()


def test_tokenizer_of_another_size(tmp_path: Path, fault: Fault) -> None:
    """Data made with a larger vocabulary than the model's: found before the first step."""
    tokens = make_tokens(tmp_path, make_tokenizer(tmp_path / "large", 80), documents=8)
    recipe = make_recipe(tmp_path / "small", 4)
    data = PackedTokens(tokens)
    from litgpt.tokenizer import Tokenizer

    with fault(tokens), pytest.raises(InheritError, match="another tokenizer"):
        data.connect(Tokenizer(recipe["tokenizer_dir"]), batch_size=2, max_seq_length=16)
