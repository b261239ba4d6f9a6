import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.models import ARCHITECTURES, make_checkpoint, make_tokenizer, make_tokens
from litgpt.model import GPT

from inheritune_lit.__main__ import main
from inheritune_lit.analyze import measure
from inheritune_lit.analyze.measures import (
    attention_mass,
    attention_rank,
    block_passes,
    block_statistics,
    choice_losses,
    first_and_last,
    summary,
)
from inheritune_lit.analyze.walk import Walk, attention_of
from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.model import keep_only, load_model
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.evaluate import validation_loss
from inheritune_lit.evaluate.held_out import held_out_loss

T = 20


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("analyze")
    return make_tokens(folder, make_tokenizer(folder / "tokenizer"), documents=4, words=60)


def windows(seed: int = 0, n: int = 5) -> list[torch.Tensor]:
    tokens = torch.randint(0, 64, (n, T + 1), generator=torch.Generator().manual_seed(seed))
    return list(tokens.split(2))


@pytest.mark.parametrize("architecture", [*ARCHITECTURES])
def test_the_walk_is_the_models_own_forward_pass(tmp_path: Path, architecture: str) -> None:
    """All blocks one after another give the model's own logits to the bit; so do those that surgery would keep."""
    model = load_model(make_checkpoint(tmp_path / "reference", architecture))
    idx = windows()[0][:, :-1]
    with torch.inference_mode():
        walk = Walk(model, idx)
        x = walk.states[0]
        for block in range(6):
            x = walk.through(block, x)
            assert torch.equal(x, walk.states[block + 1])
        assert torch.equal(walk.logits(x), model(idx))
        y = walk.states[0]
        for block in (0, 1, 4, 5):
            y = walk.through(block, y)
        ours = walk.logits(y)
        keep_only(model, [0, 1, 4, 5])
        assert torch.equal(ours, model(idx))
        keep_only(model, [0, 1, 5])  # the negative control
        assert not torch.equal(ours, model(idx))


def test_losses_of_choices_are_those_of_cut_models(llama: Path) -> None:
    choices = [*first_and_last(6, range(1, 7)), (0, 2, 4), (1, 3)]
    losses = choice_losses(load_model(llama), windows(), choices)
    assert list(losses) == choices
    for blocks in choices:
        cut = load_model(llama)
        keep_only(cut, blocks)
        assert losses[blocks] == validation_loss(cut, windows()), blocks
    assert len({loss.mean for loss in losses.values()}) == len(choices)
    assert losses[0, 1, 2] != losses[3, 4, 5]
    turned = choice_losses(load_model(llama), windows(), [(2, 1)])  # surgery takes blocks in any order
    assert turned[2, 1] != choice_losses(load_model(llama), windows(), [(1, 2)])[1, 2]


def test_passes_are_counted(llama: Path) -> None:
    for choices in ([(0, 1, 2)], first_and_last(6, [3]), first_and_last(6, range(1, 6)), [(0, 2, 4)]):
        counted: list[int] = []
        choice_losses(load_model(llama), windows()[:1], choices, counted.append)
        assert sum(counted) == block_passes(6, choices)
    # all first and last ones of k blocks: k for the prefixes, and for each of the choices with a gap its last ones
    assert block_passes(6, first_and_last(6, range(1, 6))) == 6 + sum(b for a in range(6) for b in range(6 - a))
    assert block_passes(6, [(0, 2, 4)]) == 6 + 2


def test_attention_of_known_matrices() -> None:
    size = 40
    uniform, identity = torch.full((size, size), 1 / size), torch.eye(size)
    column = torch.zeros(size, size)
    column[:, 0] = 1
    matrices = torch.stack([uniform, column, identity])
    assert attention_rank(matrices).tolist() == [1, 1, 36]
    assert attention_mass(matrices).tolist() == [36, 1, 36]
    sink = torch.full((size, size), 0.5 / (size - 1))  # half of all attention, but nearly all of the squares
    sink[:, 0] = 0.5
    assert attention_mass(sink) == 1, "a sum of the columns' entries would take 33 of them"
    halves = torch.zeros(size, size)  # two equal singular values, two equal columns
    halves[:20, 0] = halves[20:, 1] = 1
    assert (attention_rank(halves), attention_mass(halves)) == (2, 2)


def test_rank_is_that_of_the_singular_values() -> None:
    attention = torch.softmax(torch.randn(4, 30, 30, generator=torch.Generator().manual_seed(0)) * 2, -1)
    values = np.linalg.svd(attention.numpy().astype(np.float64), compute_uv=False) ** 2
    expected = [int((np.cumsum(v) / v.sum() < 0.9).sum()) + 1 for v in values]
    assert attention_rank(attention).tolist() == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("architecture", ["llama", "gemma", "qwen"])
def test_the_shown_attention_is_what_the_model_computes_with(tmp_path: Path, architecture: str) -> None:
    """Rows sum to one over the past, and the same values through it give the block's own output."""
    model = load_model(make_checkpoint(tmp_path / "reference", architecture))
    taken: list[torch.Tensor] = []
    with torch.inference_mode():
        walk = Walk(model, windows()[0][:, :-1])
        with attention_of(walk.blocks[0], taken.append):
            seen = walk.through(0, walk.states[0])
        assert torch.equal(seen, walk.through(0, walk.states[0]))
    assert len(taken) == 1  # not the second time
    assert taken[0].shape == (2, 4, T, T)
    assert torch.allclose(taken[0].sum(-1), torch.ones(2, 4, T))
    assert not taken[0].triu(1).any()
    if architecture == "gemma":  # a window of 4 tokens in block 0, if litGPT masks it so
        assert not taken[0].tril(-5).any()


def with_blocks(llama: Path, **zeroed: bool) -> GPT:
    model = load_model(llama)
    for block in model.transformer.h:
        for name, module in (("qkv", block.attn.qkv), ("attn", block.attn.proj), ("mlp", block.mlp.proj)):
            if zeroed.get(name):
                module.weight.data = torch.zeros_like(module.weight)
    return model


def test_blocks_that_do_nothing(llama: Path) -> None:
    for found in block_statistics(with_blocks(llama, attn=True, mlp=True), windows()):
        numbers = summary(found, heads=False)
        assert numbers["cosine"] == pytest.approx(1)
        assert numbers["change"] == 0
    choices = [tuple(range(n)) for n in range(1, 7)]
    losses = choice_losses(with_blocks(llama, attn=True, mlp=True), windows(), choices)
    assert len(set(losses.values())) == 1


def test_blocks_that_look_everywhere(llama: Path) -> None:
    """Without queries and keys, token i looks at all i + 1 up to itself alike: k* and m* of that matrix, by NumPy."""
    attention = np.tril(np.ones((T, T))) / np.arange(1, T + 1)[:, None]
    variance = np.linalg.svd(attention, compute_uv=False) ** 2
    rank = int((np.cumsum(variance) / variance.sum() < 0.9).sum()) + 1
    columns = np.sort(np.square(attention).sum(0))[::-1]
    mass = int((np.cumsum(columns) / columns.sum() < 0.9).sum()) + 1
    for found in block_statistics(with_blocks(llama, qkv=True), windows()):
        numbers = summary(found, heads=True)
        assert (numbers["rank"], numbers["mass"]) == (rank, mass)
        assert numbers["rank_per_head"] == [rank] * 4


def test_the_largest_over_heads_averaged_over_sequences() -> None:
    one = torch.ones(2)
    found = {"rank": torch.tensor([[1, 5], [4, 2]]), "mass": torch.tensor([[3, 3], [1, 2]]), "cosine": one}
    numbers = summary(found, heads=True)
    assert (numbers["rank"], numbers["mass"], numbers["cosine"]) == (4.5, 2.5, 1)
    assert numbers["rank_per_head"] == [2.5, 3.5]


def test_command(llama: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--windows", "6", "--max_seq_length", "16", "--device", "cpu"]
    main(["analyze", str(llama), "--data", str(data), *settings, "--out_dir", str(tmp_path / "out")])
    analysis = json.loads((tmp_path / "out/analysis.json").read_text())
    assert [row["n"] for row in analysis["depths"]] == [1, 2, 3, 4, 5, 6]
    model = GPT(load_model(llama).config)
    assert analysis["depths"][-1]["parameters"] == sum(p.numel() for p in model.parameters())
    assert analysis["depths"][-1]["bytes"] == 4 * analysis["depths"][-1]["parameters"]
    for picture in ("analysis.png", "analysis.svg"):
        assert (tmp_path / "out" / picture).stat().st_size > 10_000
    printed = capsys.readouterr().out
    rows = printed.splitlines()[:8]
    assert rows[0].split() == [
        *("first", "n", "parameters", "MB", "loss", "±"),
        *("block", "rank", "k*", "mass", "m*", "cosine", "change", "norm"),
    ]
    assert rows[7].split()[3] == f"{analysis['depths'][5]['bytes'] / 1e6:.0f}"
    assert rows[7].split()[-1] == f"{analysis['blocks'][5]['norm']:.1f}"
    assert max(map(len, rows)) <= 100


def test_beside_a_runs_model_not_in_it(llama: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_checkpoint(run / "model")
    before = sorted(path.name for path in (run / "model").iterdir())
    main(["analyze", str(run), "--data", str(data), "--windows", "2", "--max_seq_length", "16"])
    assert (run / "analysis/analysis.json").is_file()
    assert sorted(path.name for path in (run / "model").iterdir()) == before


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("windows", 1, "--windows 1: expected at least 2"),
        ("max_seq_length", 64, "--max_seq_length 64: .* has positions for 32 tokens"),
    ],
)
def test_mistakes(llama: Path, data: Path, option: str, value: int, problem: str) -> None:
    from inheritune_lit.analyze import Settings

    with pytest.raises(InheritError, match=problem):
        measure(llama, Settings(data, **{"max_seq_length": 16, option: value}))


def test_too_few_windows_for_an_error(llama: Path, tmp_path: Path) -> None:
    """What there is counts, not what was asked for; JSON knows no NaN."""
    from inheritune_lit.analyze import Settings

    short = make_tokens(tmp_path, make_tokenizer(tmp_path / "tokenizer"), documents=4, words=8)
    with pytest.raises(InheritError, match="validation split of .* has 1 windows of 20 tokens, expected at least 2"):
        measure(llama, Settings(short, max_seq_length=20))
    found = measure(llama, Settings(short, max_seq_length=4))
    assert found["windows"] == 6, "all of them, though 32 were asked for"
    json.dumps(found, allow_nan=False)


def test_sequences_for_attention_are_spread(llama: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inheritune_lit.analyze import Settings, _spread, measures

    seen: list[torch.Tensor] = []

    def note(model: GPT, batches: torch.Tensor, on_pass: object) -> list[object]:
        seen.extend(batches[:, 0])
        return []

    taken: list[torch.Tensor] = []
    own = measures.choice_losses

    def keep(model: GPT, batches: list[torch.Tensor], *arguments: object) -> object:
        taken.extend(torch.cat(batches))
        return own(model, batches, *arguments)  # type: ignore[arg-type]  # passed on as they come

    monkeypatch.setattr(measures, "block_statistics", note)
    monkeypatch.setattr(measures, "choice_losses", keep)
    measure(llama, Settings(data, max_seq_length=4))
    assert len(taken) == 32
    assert all(torch.equal(window, taken[4 * i]) for i, window in enumerate(seen))
    assert len(seen) == 8
    assert _spread(32, 3) == [0, 1, 2]


@pytest.mark.parametrize("damage", ["a tensor is missing", "a bit is flipped"])
def test_damaged_weights(tmp_path: Path, data: Path, damage: str) -> None:
    from inheritune_lit.analyze import Settings

    checkpoint = make_checkpoint(tmp_path / "damaged")
    make_tokenizer(checkpoint)
    path = checkpoint / "lit_model.pth"
    if damage == "a tensor is missing":
        state = torch.load(path)
        del state["transformer.h.2.attn.proj.weight"]
        torch.save(state, path)
        said = r"contradicts .*model_config\.yaml .*: transformer\.h\.2\.attn\.proj\.weight is missing\."
    else:
        content = bytearray(path.read_bytes())
        content[Weights(path).record("transformer.h.2.attn.proj.weight").offset] ^= 1
        path.write_bytes(content)
        said = r"is corrupt: tensor 'transformer\.h\.2\.attn\.proj\.weight' has CRC-32"
    for command in (
        lambda: measure(checkpoint, Settings(data, max_seq_length=16)),
        lambda: held_out_loss(checkpoint, data, max_seq_length=16),
    ):
        with pytest.raises(InheritError, match=said):
            command()


def test_data_of_another_tokenizer(data: Path, tmp_path: Path) -> None:
    from inheritune_lit.analyze import Settings

    small = make_checkpoint(tmp_path / "small", vocab_size=32, padded_vocab_size=32)
    with pytest.raises(InheritError, match="token ids that .* does not know: another tokenizer"):
        measure(small, Settings(data, max_seq_length=16))
