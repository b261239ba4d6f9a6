"""The loss over a whole held-out split and its domains, and what CHECKPOINT may be."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import make_checkpoint, make_tokenizer

from inheritune_lit.analyze import Settings, measure
from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.model import load_model
from inheritune_lit.evaluate import validation_windows
from inheritune_lit.evaluate.command import evaluate
from inheritune_lit.evaluate.held_out import domain_windows, held_out_loss
from inheritune_lit.evaluate.subject import find
from inheritune_lit.prepare.command import prepare


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_checkpoint(tmp_path_factory.mktemp("models") / "tiny")
    make_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def tokens(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains of different text, held-out files of both."""
    folder = tmp_path_factory.mktemp("tokens")
    random = np.random.default_rng(0)
    for domain, (low, high) in {"law": (0, 9), "poems": (30, 60)}.items():
        (folder / "text" / domain).mkdir(parents=True)
        for name in ("a", "b", "c.val", "d.val", "e.val"):
            words = " ".join(f"w{word}" for word in random.integers(low, high, 30))
            (folder / "text" / domain / f"{name}.txt").write_text(words)
    settings: dict[str, Any] = {"val_share": 0, "val_glob": "*.val.txt", "tasks": 2}
    prepare(folder / "text", out_dir=folder / "tokens", tokenizer_dir=checkpoint, **settings)
    return folder / "tokens"


def test_windows_of_domains_by_hand() -> None:
    # T = 4: windows hold the tokens 0…4, 4…8, 8…12, 12…16, 16…20
    entries = [{"domain": name, "tokens": tokens} for name, tokens in (("a", 9), ("b", 3), ("c", 9))]
    manifest: Any = SimpleNamespace(content={"splits": {"val": entries}})
    assert domain_windows(manifest, 4) == {"a": range(0, 2), "b": range(3, 3), "c": range(3, 5)}
    entries[0]["tokens"] = 8  # window 1 now reaches over the border; b begins at 8 and c at 11
    assert domain_windows(manifest, 4) == {"a": range(0, 1), "b": range(2, 2), "c": range(3, 4)}


def test_loss_over_everything_and_by_domain(checkpoint: Path, tokens: Path) -> None:
    content = held_out_loss(checkpoint, tokens, max_seq_length=8, batch_size=5)
    model = load_model(checkpoint)
    manifest = json.loads((tokens / "manifest.json").read_text())
    stream = np.concatenate(
        [
            np.fromfile(tokens / shard["path"], dtype="<u2")
            for entry in manifest["splits"]["val"]
            for shard in entry["shards"]
        ]
    ).astype(np.int64)
    count = (len(stream) - 1) // 8
    assert content["windows"] == count
    assert count % 5, "the last batch is a smaller one, and counts"
    losses = []
    for i in range(count):
        window = torch.from_numpy(stream[8 * i : 8 * i + 9])
        with torch.inference_mode():
            logits = model(window[None, :-1])[0]
        losses.append(torch.nn.functional.cross_entropy(logits, window[1:]).item())
    assert content["mean"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert content["stderr"] == pytest.approx(np.std(losses, ddof=1) / count**0.5, rel=1e-4)
    assert content["perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)
    assert content["tokens"] == 8 * count

    border = manifest["splits"]["val"][0]["tokens"]
    law, poems = content["domains"]["law"], content["domains"]["poems"]
    assert [entry["domain"] for entry in manifest["splits"]["val"]] == ["law", "poems"]
    first = [loss for i, loss in enumerate(losses) if 8 * i + 9 <= border]
    last = [loss for i, loss in enumerate(losses) if 8 * i >= border]
    assert (law["windows"], poems["windows"]) == (len(first), len(last))
    assert len(first) + len(last) == count - (border % 8 != 1), "one window reaches over the border"
    assert law["mean"] == pytest.approx(np.mean(first), rel=1e-5)
    assert poems["mean"] == pytest.approx(np.mean(last), rel=1e-5)


def test_its_windows_are_those_of_training(checkpoint: Path, tokens: Path) -> None:
    from inheritune_lit.evaluate import validation_loss

    frozen = validation_windows(tokens, 8, batch_size=1, batches=10**6)
    loss = validation_loss(load_model(checkpoint), frozen)
    assert held_out_loss(checkpoint, tokens, max_seq_length=8)["mean"] == pytest.approx(loss.mean, rel=1e-6)


def test_command(checkpoint: Path, tokens: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "model").symlink_to(checkpoint)
    (run / "recipe.yaml").write_text("train: {max_seq_length: 16}")
    evaluate(str(run), loss=tokens)
    content = json.loads((run / "evaluation/loss.json").read_text())
    assert content["max_seq_length"] == 16, "that of the run's recipe"
    assert content["model"] == {
        **{"name": "run", "path": str(run / "model"), "fingerprint": find(str(checkpoint)).fingerprint},
    }
    assert f"law              {content['domains']['law']['mean']:.4f}" in capsys.readouterr().out
    (run / "step-00000008").symlink_to(checkpoint)
    assert find(str(run / "step-00000008")).trained_length == 16
    (run / "weights/00000008").parent.mkdir()
    (run / "weights/00000008").symlink_to(checkpoint)
    assert find(str(run / "weights/00000008")).trained_length == 16, "a run's copy of a step's weights is the run's"
    (run / "recipe.yaml").write_text("model_config: {block_size: 32}\ntrain: {max_tokens: 1000}")
    assert find(str(run)).trained_length == 32, "as litGPT trains a recipe without max_seq_length"
    (tmp_path / "plain/final").mkdir(parents=True)
    for file in checkpoint.iterdir():
        shutil.copyfile(file, tmp_path / "plain/final" / file.name)
    (tmp_path / "plain/final/hyperparameters.yaml").write_text("train: {max_seq_length: 24}")  # as litGPT leaves it
    assert find(str(tmp_path / "plain")).trained_length == 24
    evaluate(str(checkpoint), loss=tokens, out_dir=tmp_path / "out")
    assert json.loads((tmp_path / "out/loss.json").read_text())["max_seq_length"] == 32, "all that the model takes"


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_known_first(device: str, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for ask in (
        lambda: evaluate(str(nowhere), device=device),
        lambda: held_out_loss(nowhere, nowhere, device=device),
        lambda: measure(nowhere, Settings(nowhere), device),
    ):
        with pytest.raises(InheritError, match=f"--device is {device}, which PyTorch can't use here"):
            ask()


def test_errors(checkpoint: Path, tokens: Path, tmp_path: Path) -> None:
    with pytest.raises(InheritError, match="max_seq_length is 33, .* takes 32 tokens at most"):
        held_out_loss(checkpoint, tokens, max_seq_length=33)
    other = make_checkpoint(tmp_path / "other")
    make_tokenizer(other, 60)
    with pytest.raises(InheritError, match="tokenized with another tokenizer"):
        held_out_loss(other, tokens)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/config.json").write_text("{}")
    with pytest.raises(InheritError, match="is no checkpoint folder, neither litGPT's nor one of Hugging Face's"):
        evaluate(str(tmp_path / "hf"), loss=tokens)
    with pytest.raises(InheritError, match="--batch_size is many, expected auto or a number"):
        evaluate(str(checkpoint), loss=tokens, batch_size="many")
    for asked, said in (({"tasks": "piqua"}, "has no task piqua"), ({"suite": "low"}, "No suite low")):
        with pytest.raises(InheritError, match=said):
            evaluate(str(checkpoint), loss=tokens, out_dir=tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists(), "known before anything is measured"
