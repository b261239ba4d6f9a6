"""DistilledTokens: its gradient by the plain formula, its teacher's logits, its runs, its refusals."""

import copy
import csv
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.models import make_checkpoint, make_tokenizer
from helpers.small_runs import BATCH, LENGTH, make_recipe, same_state
from litgpt.__main__ import main
from litgpt.pretrain import get_lr
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inheritune_lit import gpt2
from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.folder import WEIGHTS, load_config
from inheritune_lit.checkpoint.model import load_model
from inheritune_lit.data import DistilledTokens, PackedTokens
from inheritune_lit.data.distilled import CHUNK, gradient_of
from inheritune_lit.data.tokenizer import Tokenizer
from inheritune_lit.data.tokens import chunked_cross_entropy

STEPS, SAVED, MICRO = 36, 30, 2
SETTINGS = {"weight": 0.7, "temperature": 2.0}


def formula(logits: Tensor, taught: Tensor, targets: Tensor, weight: float, temperature: float) -> Tensor:
    """(1 − weight)·CE + weight·temperature²·KL(teacher ‖ target), for autograd; the heads may be padded differently."""
    rows = min(logits.size(-1), taught.size(-1))
    log_q = F.log_softmax(taught[..., :rows] / temperature, dim=-1)
    log_p = F.log_softmax(logits / temperature, dim=-1)[..., :rows]
    divergence = (log_q.exp() * (log_q - log_p)).sum(-1).mean()
    labels = F.cross_entropy(logits.flatten(0, -2), targets.flatten())
    return (1 - weight) * labels + weight * temperature**2 * divergence


@pytest.mark.parametrize(("rows", "taught_rows"), [(40, 40), (40, 48), (48, 40)])
@pytest.mark.parametrize(("weight", "temperature"), [(0.4, 1.0), (0.9, 2.0), (1.0, 0.5)])
def test_the_gradient_is_that_of_the_formula(rows: int, taught_rows: int, weight: float, temperature: float) -> None:
    number = 2 * CHUNK + 3
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(number, rows, dtype=torch.float64, generator=random, requires_grad=True)
    taught = 2 * torch.randn(number, taught_rows, dtype=torch.float64, generator=random)
    targets = torch.randint(0, 40, (number,), generator=random)
    formula(logits, taught, targets, weight, temperature).backward()
    assert logits.grad is not None
    found = gradient_of(logits.detach(), taught, targets, weight, temperature)
    torch.testing.assert_close(found, logits.grad, rtol=1e-12, atol=1e-17)
    other = gradient_of(logits.detach(), taught, targets, weight - 0.01, temperature)
    assert (other - logits.grad).abs().max() > 1e-3 * logits.grad.abs().max(), "negative control"


def taught_by(folder: Path) -> DistilledTokens:
    data = DistilledTokens(folder, teacher_dir=folder, weight=0.5)
    data.folder = folder
    data.setup()
    return data


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma"])
def test_value_is_cross_entropy_and_the_teachers_logits_are_the_references(tmp_path: Path, architecture: str) -> None:
    folder = make_checkpoint(tmp_path / "teacher", architecture)
    reference = gpt2.build(load_config(folder))  # as litGPT opens it
    reference.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True))
    data = taught_by(folder)
    tokens = torch.randint(0, 64, (3, 17), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    logits = torch.randn(3, 16, 64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    targets = tokens[:, 1:].long()
    loss = data.loss(tokens, logits, targets)
    assert torch.equal(loss, chunked_cross_entropy(logits, targets))
    (loss / 4).backward()
    with torch.no_grad():
        taught = reference.eval()(tokens[:, :-1].long())
        assert torch.equal(data.teacher(tokens[:, :-1].long()), taught)
        expected = gradient_of(logits.flatten(0, 1), taught.flatten(0, 1), targets.flatten(), 0.5, 1.0) / 4
    assert torch.equal(logits.grad.flatten(0, 1), expected)  # type: ignore[union-attr]


@pytest.mark.parametrize("shift", [0, 2])
def test_targets_of_other_positions_are_refused(tmp_path: Path, shift: int) -> None:
    data = taught_by(make_checkpoint(tmp_path / "teacher"))
    tokens = torch.arange(40).view(2, 20)
    logits = torch.zeros(2, 18, 64, requires_grad=True)
    assert data.loss(tokens[:, :19], logits, tokens[:, 1:19]).item() == pytest.approx(4.159, abs=1e-3)
    with pytest.raises(InheritError, match="targets are not the micro-batch's tokens, each moved by one"):
        data.loss(tokens[:, :19], logits, tokens[:, shift : shift + 18])


class Peak(TorchDispatchMode):
    """The most bytes of tensors that are alive at once, of those that are made within."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for storage in (tensor.untyped_storage() for tensor in tree_leaves(out) if isinstance(tensor, Tensor)):
            if storage._cdata not in self.live:
                self.live[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.live.pop, storage._cdata, None)
        self.bytes = max(self.bytes, sum(self.live.values()))
        return out


@pytest.mark.parametrize("windows", [1, 4])
def test_it_holds_at_most_one_tensor_of_logits_more_than_litgpt(tmp_path: Path, windows: int) -> None:
    data = taught_by(make_checkpoint(tmp_path / "teacher"))
    data.teacher = lambda tokens: torch.zeros(*tokens.shape, 64, dtype=torch.bfloat16)  # type: ignore[assignment]
    data.place = torch.device("cpu")
    tokens = torch.zeros(windows, 1025, dtype=torch.long)
    targets = tokens[:, 1:]

    def peak(loss: Callable[[Tensor], Tensor]) -> float:
        head = torch.zeros(windows, 1024, 64, requires_grad=True)
        with Peak() as most:
            logits = head * 1.0  # litGPT's loop has a name for them, too
            loss(logits).backward()
        return most.bytes / (4 * head.numel())

    plain = peak(lambda logits: chunked_cross_entropy(logits, targets))
    assert 3 <= plain < 3.1
    assert peak(lambda logits: data.loss(tokens, logits, targets)) <= plain + 1


# In `litgpt pretrain`


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distilled")


@pytest.fixture(scope="module")
def recipe(folder: Path) -> dict[str, Any]:
    """A small Llama that learns from one with a block more and a head padded further; three epochs."""
    recipe = make_recipe(folder, STEPS, save_interval=SAVED, lr_warmup_steps=4)
    teacher = make_checkpoint(folder / "teacher", n_layer=3, seed=5, padded_vocab_size=72)
    make_tokenizer(teacher)
    recipe["eval"] |= {"interval": STEPS, "max_iters": 2}
    recipe["data"] = {
        "class_path": "inheritune_lit.data.DistilledTokens",
        "init_args": recipe["data"]["init_args"] | SETTINGS | {"num_workers": 0, "teacher_dir": str(teacher)},
    }
    return recipe


Pretrain = Callable[..., Path]


@pytest.fixture(scope="module")
def pretrain(folder: Path, recipe: dict[str, Any]) -> Pretrain:
    """Runs litGPT's own command in this process, with other settings of `data`, and gives the run's folder."""

    def run(name: str, *flags: str, class_path: str | None = None, **data: Any) -> Path:
        changed = copy.deepcopy(recipe) | {"out_dir": str(folder / name)}
        changed["data"]["init_args"] |= data
        if class_path:
            changed["data"]["class_path"] = class_path
            for key in ("teacher_dir", *SETTINGS):
                del changed["data"]["init_args"][key]
        path = folder / f"{name}.yaml"
        path.write_text(yaml.dump(changed))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["litgpt", "pretrain", "--config", str(path), *flags])
            main()
        return folder / name

    return run


@pytest.fixture(scope="module")
def distilled(pretrain: Pretrain) -> Path:
    return pretrain("distilled")


def logged(run: Path) -> tuple[list[float], float]:
    """A run's training losses, and its only validation loss."""
    with (run / "logs/csv/version_0/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [float(r["loss"]) for r in rows if r["loss"]], next(float(r["val_loss"]) for r in rows if r["val_loss"])


def trained_by_hand(recipe: dict[str, Any]) -> tuple[torch.nn.Module, list[float]]:
    """What the recipe says, in plain PyTorch, with autograd on the formula; its model and its losses by the labels."""
    settings, train = recipe["data"]["init_args"], recipe["train"]
    data = PackedTokens(Path(settings["data_path"]), epochs=settings["epochs"], num_workers=0)
    data.connect(batch_size=MICRO, max_seq_length=LENGTH)
    model, teacher = load_model(Path(recipe["initial_checkpoint_dir"])), load_model(Path(settings["teacher_dir"]))
    model.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()}, assign=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe["optimizer"]["init_args"]["lr"])
    losses, each = [], BATCH // MICRO
    micro_batches = iter(data.train_dataloader())
    for step in range(STEPS):
        rate = get_lr(optimizer.defaults["lr"], (step + 1) * each - 1, 4 * each, STEPS * each, train["min_lr"])
        labels = 0.0
        for _ in range(each):
            tokens = next(micro_batches)[:, : LENGTH + 1].long()
            logits = model(tokens[:, :-1])
            with torch.no_grad():
                taught = teacher(tokens[:, :-1])
            (formula(logits, taught, tokens[:, 1:], **SETTINGS) / each).backward()
            labels += F.cross_entropy(logits.detach().flatten(0, 1), tokens[:, 1:].flatten()).item() / each
        torch.nn.utils.clip_grad_norm_(model.parameters(), train["max_norm"])
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        losses.append(labels)
    return model, losses


@pytest.mark.filterwarnings("ignore")  # Lightning's, of the data loader
def test_a_run_ends_as_the_formula_says(recipe: dict[str, Any], distilled: Path) -> None:
    """Its weights, its training losses, which are those of the labels, and its validation loss."""
    expected, losses = trained_by_hand(recipe)
    training, validation = logged(distilled)
    assert training == pytest.approx(losses, abs=1e-5)
    assert len(training) == STEPS
    found = load_model(distilled / "final")
    for name, parameter in found.named_parameters():
        torch.testing.assert_close(parameter, expected.get_parameter(name), rtol=0, atol=2e-5)
    data = PackedTokens(Path(recipe["data"]["init_args"]["data_path"]), num_workers=0)
    data.connect(batch_size=MICRO, max_seq_length=LENGTH)
    with torch.no_grad():
        held_out = [batch.long() for batch in data.val_dataloader()][:2]
        means = [F.cross_entropy(found(b[:, :-1]).flatten(0, 1), b[:, 1:].flatten()).item() for b in held_out]
    assert validation == pytest.approx(sum(means) / 2, abs=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_without_weight_it_is_packed_tokens_to_the_bit(pretrain: Pretrain, distilled: Path, tmp_path: Path) -> None:
    """And the teacher, which is not loaded, need not be there."""
    plain = pretrain("plain", class_path="inheritune_lit.data.PackedTokens")
    assert same_state(plain, pretrain("weightless", weight=0.0, teacher_dir=str(tmp_path / "gone")))
    assert not same_state(plain, distilled), "a run with a teacher is another one, and one after it is not taught"


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_ends_bit_identical(pretrain: Pretrain, distilled: Path) -> None:
    """From a checkpoint in the third epoch; with another teacher, weight or data class it is refused."""
    flags = ("--resume", str(distilled / f"step-{SAVED:08d}" / WEIGHTS), "--initial_checkpoint_dir", "null")
    assert same_state(distilled, pretrain("resumed", *flags))
    with pytest.raises(InheritError, match=r"by another teacher.*\n.*weight: 0.7 before, 0.6 now"):
        pretrain("other_weight", *flags, weight=0.6)
    other = make_checkpoint(distilled.parent / "other_teacher", seed=6)
    make_tokenizer(other)
    with pytest.raises(InheritError, match=r'by another teacher.*\n.*teacher: "\w{64}" before, "\w{64}" now'):
        pretrain("other_teacher", *flags, teacher_dir=str(other))
    with pytest.raises(InheritError, match=r"temperature: 2.0 before, absent now"):
        pretrain("none", *flags, class_path="inheritune_lit.data.PackedTokens")


# Refused before any training


def test_settings_out_of_range() -> None:
    for name, value in (("weight", -0.1), ("weight", 1.01), ("temperature", 0.0), ("temperature", float("nan"))):
        with pytest.raises(InheritError, match=f"init_args.{name} is {value}, expected"):
            DistilledTokens(Path("data"), **{"teacher_dir": Path("teacher"), "weight": 0.5, name: value})
    with pytest.raises(InheritError, match=r"teacher_dir '~/x' begins with ~"):
        DistilledTokens(Path("data"), teacher_dir=Path("~/x"), weight=0.5)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"block_size": 8}, r"The teacher attends to 8 tokens .*the training's windows have 16"),
        ({"padded_vocab_size": 40, "vocab_size": 40}, r"has embeddings for 40 tokens .*the data ids up to \d+"),
    ],
)
def test_a_teacher_that_does_not_fit(
    recipe: dict[str, Any], tmp_path: Path, options: dict[str, Any], problem: str
) -> None:
    teacher = make_checkpoint(tmp_path / "teacher", **options)
    make_tokenizer(teacher)
    with pytest.raises(InheritError, match=problem):
        connect(recipe, teacher)


def connect(recipe: dict[str, Any], teacher: Path) -> None:
    data = DistilledTokens(Path(recipe["data"]["init_args"]["data_path"]), teacher_dir=teacher, **SETTINGS)
    data.connect(Tokenizer(recipe["tokenizer_dir"]), 2, LENGTH)
    data.setup()


def test_a_teacher_that_is_not_whole_or_has_another_tokenizer(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InheritError, match=r"The teacher .*nowhere holds no lit_model.pth"):
        connect(recipe, tmp_path / "nowhere")
    teacher = make_checkpoint(tmp_path / "teacher")
    with pytest.raises(InheritError, match="Can't open the tokenizer in"):
        connect(recipe, teacher)
    make_tokenizer(teacher, size=63)
    with pytest.raises(InheritError, match=r"teacher's tokenizer is another one.* of 63 tokens.* expected 64 tokens"):
        connect(recipe, teacher)
    make_tokenizer(teacher)
    connect(recipe, teacher)
    content = (teacher / WEIGHTS).read_bytes()
    (teacher / WEIGHTS).write_bytes(content[:-100])
    with pytest.raises(InheritError, match="is not a whole PyTorch checkpoint"):
        connect(recipe, teacher)
    (teacher / WEIGHTS).write_bytes(content)
    head = torch.load(teacher / WEIGHTS, weights_only=True)["lm_head.weight"]
    place = content.index(head.numpy().tobytes())
    (teacher / WEIGHTS).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(InheritError, match="CRC-32"):
        connect(recipe, teacher)
