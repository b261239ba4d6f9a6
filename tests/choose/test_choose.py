import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.models import make_checkpoint, make_tokenizer, make_tokens

from inheritune_lit.__main__ import main
from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.layers import parse_layers
from inheritune_lit.checkpoint.model import keep_only, load_model
from inheritune_lit.choose import choose
from inheritune_lit.choose.candidates import DENSE, ENDS, GAP, IMPORTANCE, PAPER, Turns, dense_ends, field, kinds, turns
from inheritune_lit.choose.table import rules, verdict
from inheritune_lit.choose.trial import Trial
from inheritune_lit.evaluate import ValidationLoss
from inheritune_lit.plan.model import count_parameters
from inheritune_lit.surgery.command import surgery

SETTINGS: dict[str, Any] = {"keep": 3, "candidates": 3, "steps": 8, "windows": 4, "max_seq_length": 16}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of six blocks with its tokenizer."""
    folder = make_checkpoint(tmp_path_factory.mktemp("choose") / "reference")
    for path in make_tokenizer(folder.parent / "tokenizer").iterdir():
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def data(reference: Path) -> Path:
    return make_tokens(reference.parent, reference.parent / "tokenizer", documents=8, words=200)


def losses_of(blocks: tuple[int, ...]) -> list[float]:
    """What a training would end with, for tests that need none: the fewer of the first blocks, the better."""
    mean = 3.0 + sum(blocks[:2]) / -100
    return [mean - 0.01, mean, mean, mean + 0.01]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Trainings are noted here instead of run."""
    noted: list[tuple[str, int]] = []

    def run(self: Trial, candidate: Any, steps: int, work: Path, held_out: Any) -> dict[str, Any]:
        noted.append((candidate.layers, steps))
        loss = ValidationLoss(tuple(losses_of(candidate.blocks)))
        return {
            **{"steps": steps, "tokens": steps * self.batch.tokens, "seconds": 1.0},
            **{"loss": loss.mean, "stderr": loss.stderr, "per_window": loss.per_window},
        }

    monkeypatch.setattr(Trial, "run", run)
    return noted


def test_the_whole_search(reference: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained by litGPT; stopped in the second round, it goes on there; the winner is cut by what it wrote."""
    out = tmp_path / "choice"
    own: Callable[..., dict[str, Any]] = Trial.run
    done: list[str] = []

    def stopped(self: Trial, candidate: Any, steps: int, *rest: Any) -> dict[str, Any]:
        if steps == 8 and done:
            raise KeyboardInterrupt
        found = own(self, candidate, steps, *rest)
        done.extend([candidate.layers] * (steps == 8))
        return found

    monkeypatch.setattr(Trial, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        choose(reference, data=data, out_dir=out, **SETTINGS)
    work = tmp_path / ".choice.staging/work"
    measured = {path.name: path.stat().st_mtime_ns for path in work.glob("*-*.json")}
    assert len(measured) == 4
    assert not [path for path in work.iterdir() if path.is_dir()], "weights go when their loss is known"

    monkeypatch.setattr(Trial, "run", own)
    kept: dict[str, int] = {}
    monkeypatch.setattr(shutil, "rmtree", _noting(shutil.rmtree, kept))
    choose(reference, data=data, out_dir=out, **SETTINGS)
    assert {name: kept[name] for name in measured} == measured, "nothing is measured again"
    choice = json.loads((out / "choice.json").read_text())
    first, second = sorted(
        (row for row in choice["candidates"] if len(row["rounds"]) == 2), key=lambda row: row["rounds"][1]["loss"]
    )
    won = choice["winner"]
    assert (won["layers"], won["runner_up"]) == (first["layers"], second["layers"])
    pairs = zip(second["rounds"][1]["per_window"], first["rounds"][1]["per_window"], strict=True)
    differences = torch.tensor([theirs - ours for theirs, ours in pairs], dtype=torch.float64)
    assert won["lead"] == pytest.approx(differences.mean().item())
    assert won["stderr"] == pytest.approx(differences.std().item() / 2)
    assert won["clear"] is (won["lead"] > 2 * won["stderr"])
    assert choice["trained_tokens"] == (3 * 2 + 2 * 8) * choice["step_tokens"]
    assert all(row["rounds"][0]["loss"] < row["untrained"] for row in choice["candidates"]), "training helps"
    assert sorted(path.name for path in out.iterdir()) == [
        *("choice.json", "choice.png", "choice.svg", "inheritance.json", "surgery.yaml")
    ]
    main(["surgery", "--config", str(out / "surgery.yaml")])
    cut = Path(yaml.safe_load((out / "surgery.yaml").read_text())["out_dir"])
    assert json.loads((cut / "inheritance.json").read_text())["blocks"] == parse_layers(won["layers"], 6)


def _noting(own: Callable[..., None], kept: dict[str, int]) -> Callable[..., None]:
    """rmtree that remembers which results were in the folder."""

    def rmtree(path: Path, *rest: Any, **options: Any) -> None:
        kept.update({file.name: file.stat().st_mtime_ns for file in Path(path).glob("*.json")})
        own(path, *rest, **options)

    return rmtree


def test_the_better_half_is_trained_for_longer(
    reference: Path, data: Path, tmp_path: Path, trained: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    choose(reference, data=data, out_dir=tmp_path / "out", **SETTINGS | {"candidates": 5, "steps": 12})
    assert [steps for _, steps in trained] == [3] * 5 + [12] * 3
    first_round = sorted((layers for layers, _ in trained[:5]), key=lambda s: losses_of((*parse_layers(s, 6),))[1])
    assert {layers for layers, _ in trained[5:]} <= set(first_round[:3])
    assert trained[0][0] == "3", "the paper's is always among them"
    capsys.readouterr()
    choose(reference, data=data, out_dir=tmp_path / "out", **SETTINGS | {"candidates": 5, "steps": 12})
    assert "is whole already" in capsys.readouterr().out
    with pytest.raises(InheritError, match="made otherwise.*steps"):
        choose(reference, data=data, out_dir=tmp_path / "out", **SETTINGS | {"candidates": 5, "steps": 16})
    assert len(trained) == 8


def test_turns_are_those_of_the_hidden_states(llama: Path) -> None:
    model = load_model(llama)
    windows = torch.randint(0, 64, (3, 17), generator=torch.Generator().manual_seed(0))
    found = turns(model, [windows], 3)
    states: list[torch.Tensor] = []
    for block in model.transformer.h:
        block.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
        block.register_forward_hook(lambda _, __, x: states.append(x) if len(states) == 6 else None)
    with torch.inference_mode():
        model(windows[:, :-1])
    cosine = torch.cosine_similarity(states[2], states[3], dim=-1).mean().item()
    angle = (torch.cosine_similarity(states[1], states[4], dim=-1).acos() / torch.pi).mean().item()
    assert found.cosines[2] == pytest.approx(cosine, abs=1e-6)
    assert found.angles[1] == pytest.approx(angle, abs=1e-6)
    assert (len(found.cosines), len(found.angles)) == (6, 4)


def test_kinds() -> None:
    named = kinds(6, 3, Turns((0.1, 0.9, 0.5, 0.2, 0.95, 0.3), (0.4, 0.1, 0.3, 0.5)))
    assert named[0, 1, 2] == PAPER
    assert [blocks for blocks, kind in named.items() if kind == ENDS] == [(0, 1, 5), (0, 4, 5), (3, 4, 5)]
    assert named[0, 3, 5] == IMPORTANCE, "those that turn the stream most"
    assert GAP not in named.values(), "the smallest turn is that of 0 | 4, 5, which is there already"
    assert all(len(set(blocks)) == 3 for blocks in named)


@pytest.mark.parametrize("n_layer", [6, 7, 26, 30, 32])
def test_dense_at_both_ends(n_layer: int) -> None:
    for keep in range(2, n_layer):
        blocks = dense_ends(n_layer, keep)
        assert len(set(blocks)) == keep
        assert list(blocks) == sorted(blocks)
        assert (blocks[0], blocks[-1]) == (0, n_layer - 1)
    gaps = [b - a for a, b in zip(dense_ends(30, 12), dense_ends(30, 12)[1:], strict=False)]
    assert gaps[0] < gaps[len(gaps) // 2] > gaps[-1]


def test_the_field_has_the_papers_and_both_neighbours_of_the_best_ends() -> None:
    named = kinds(30, 15, Turns(tuple(i / 30 for i in range(30)), tuple(i / 30 for i in range(16))))
    ends = {a: (*range(a), *range(15 + a, 30)) for a in range(16)}
    losses = {blocks: ValidationLoss((20.0, 20.0)) for blocks in named}
    losses |= {ends[a]: ValidationLoss((loss, loss)) for a, loss in {5: 7.5, 6: 7.6, 8: 9.0, 4: 11.2, 3: 11.5}.items()}
    losses[dense_ends(30, 15)] = ValidationLoss((8.8, 8.8))
    chosen = field(named, losses, 5)
    assert [c.blocks for c in chosen[:4]] == [ends[15], ends[5], ends[4], ends[6]]
    assert (chosen[4].kind, len(chosen)) == (DENSE, 5)


def test_a_target_size_says_how_many_blocks(
    reference: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def kept(**target: Any) -> int:
        settings = {key: value for key, value in SETTINGS.items() if key != "keep"} | target
        choose(reference, data=data, out_dir=tmp_path / "out", dry_run=True, **settings)
        return int(capsys.readouterr().out.split()[0])

    model = load_model(reference)
    block = sum(p.numel() for p in model.transformer.h[0].parameters())
    whole = count_parameters(model.config).total
    assert kept(max_parameters=whole - block) == 5
    assert kept(max_parameters=whole - block - 1) == 4
    cache = 4 * 32 * 10  # bytes of a block: keys and values of 32 channels, 2 bytes each, for 10 tokens
    size = 2 * (whole - 3 * block) + 3 * cache
    assert kept(max_memory=f"{size}B", context=10) == 3
    assert kept(max_memory=f"{size - 1}", context=10) == 2
    assert kept(max_memory="1MiB", context=10) == 5
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"keep": None}, "one of --keep 13, --max_parameters 1.5e9 and --max_memory 3GB"),
        ({"max_parameters": 1e9}, "one of --keep"),
        ({"keep": 6}, "--keep 6: expected 2 to 5; the reference has 6 blocks"),
        ({"keep": None, "max_parameters": 10.0}, "Two blocks of the reference .* more than the 10 asked for"),
        ({"keep": None, "max_memory": "much"}, "--max_memory much: expected a size such as 3GB"),
        ({"candidates": 7}, "--candidates 7: expected 3 to 6"),
        ({"steps": 7}, "--steps 7: expected at least 8"),
        ({"windows": 1}, "--windows 1: expected at least 2"),
        ({"learning_rate": 0.0}, "--learning_rate 0.0: expected a number between 0 and 1"),
        ({"max_seq_length": 64}, "--max_seq_length 64: .* has positions for 32 tokens"),
    ],
)
def test_mistakes(
    reference: Path, data: Path, tmp_path: Path, trained: list[Any], settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InheritError, match=problem):
        choose(reference, data=data, out_dir=tmp_path / "out", **SETTINGS | settings)
    assert not (tmp_path / "out").exists()
    assert not trained


def test_no_clear_winner_is_said() -> None:
    won = {"layers": "0,4-5", "lead": 0.012, "stderr": 0.01, "clear": False, "runner_up": "3"}
    choice = {"winner": won, "steps": 40, "keep": 2, "reference": {"n_layer": 12}}
    assert verdict(choice).startswith("No clear winner: --layers 0,4-5 is 0.012 ± 0.010 nats below --layers 3")
    assert verdict({**choice, "winner": won | {"clear": True}}).startswith("Keep --layers 0,4-5: 0.012")
    said = " ".join(rules(choice))
    assert "choose --keep 5 here first" in said
    assert "a fifth of the blocks" in said
    assert "half" not in " ".join(rules({**choice, "keep": 7}))


def test_a_trial_is_a_recipe_that_litgpt_takes(reference: Path, data: Path, tmp_path: Path) -> None:
    """The losses it compares are those of the blocks that were named, trained on one order of batches."""
    from inheritune_lit.choose.trial import Batch

    surgery(reference, layers="0,4-5", out_dir=tmp_path / "start")
    trial = Trial(reference, data, Batch(16, 4, 2), 1e-3, tied=False)
    recipe = trial.recipe(tmp_path / "start", 8)
    assert recipe["train"]["max_tokens"] == 8 * 4 * 16
    assert recipe["model_config"]["n_layer"] == 3
    other = trial.recipe(tmp_path / "start", 16)
    assert other["data"]["init_args"]["seed"] == recipe["data"]["init_args"]["seed"]
    model = load_model(reference)
    keep_only(model, [0, 4, 5])
    idx = torch.arange(16)[None]
    with torch.inference_mode():
        assert torch.equal(model(idx), load_model(tmp_path / "start")(idx))


def test_what_another_search_left_is_not_taken_up(
    reference: Path, data: Path, tmp_path: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted search with another learning rate has results under the same names."""
    work = tmp_path / ".out.staging/work"
    work.mkdir(parents=True)
    (work / "made.json").write_text(json.dumps({"learning_rate": 2e-3}))
    (work / "3-2.json").write_text("{}")
    run = Trial.run

    def checked(self: Trial, candidate: Any, steps: int, work: Path, held_out: Any) -> dict[str, Any]:
        assert [path.name for path in work.iterdir()] == ["made.json"]
        return run(self, candidate, steps, work, held_out)

    monkeypatch.setattr(Trial, "run", checked)
    choose(reference, data=data, out_dir=tmp_path / "out", **SETTINGS)
    assert len(trained) == 5
