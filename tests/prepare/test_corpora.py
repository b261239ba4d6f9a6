"""Budgets over RedPajama's two layouts, end to end: file names → domains → a sample in LLaMA's proportions."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zstandard
from helpers.models import ROOT
from helpers.texts import bytes_of, jsonl

from inheritune_lit.base.errors import InheritError
from inheritune_lit.data.inspect import document_lengths
from inheritune_lit.data.manifest import Manifest
from inheritune_lit.prepare.command import prepare

RECIPE = yaml.safe_load((ROOT / "recipes/data/redpajama_1b.yaml").read_text())
SAMPLE_FILES = {
    "common_crawl": [f"cc_{crawl}_sample" for crawl in ("2019-30", "2020-05", "2021-04", "2022-05", "2023-06")],
    **{domain: [f"{domain}_sample"] for domain in ("arxiv", "book", "c4", "github", "stackexchange", "wikipedia")},
}
BUDGET = 60_000


def texts(domain: str, documents: int) -> list[str]:
    """Different for each domain, of 5 to 60 words; their first word names the domain and the document."""
    rng = np.random.RandomState(sum(map(ord, domain)))
    lengths = rng.randint(5, 60, documents)
    return [" ".join([f"{domain}-{i}", *map(str, rng.randint(0, 99, length))]) for i, length in enumerate(lengths)]


def documents_in(domain: str) -> int:
    return int(60 + 3 * BUDGET * RECIPE["proportions"][domain] / 100)


@pytest.fixture(scope="module")
def sample_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 1T sample's: a file for each domain, five for Common Crawl."""
    folder = tmp_path_factory.mktemp("sample")
    for domain, names in SAMPLE_FILES.items():
        all_texts = texts(domain, documents_in(domain))
        for i, name in enumerate(names):
            (folder / f"{name}.jsonl").write_bytes(jsonl(all_texts[i :: len(names)]))
    return folder


@pytest.fixture(scope="module")
def full_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The full release's: a folder for each domain, Common Crawl compressed. The documents are the same."""
    folder = tmp_path_factory.mktemp("full")
    for domain in SAMPLE_FILES:
        (folder / domain).mkdir()
        all_texts = texts(domain, documents_in(domain))
        for i in range(3):
            data = jsonl(all_texts[i::3])
            if domain == "common_crawl":
                (folder / domain / f"{i}.jsonl.zst").write_bytes(zstandard.compress(data))
            else:
                (folder / domain / f"{i}.jsonl").write_bytes(data)
    return folder


def run(input_dir: Path, out_dir: Path, tokenizer: Path, **options: Any) -> Path:
    settings = {name: RECIPE[name] for name in ("proportions", "domains", "seed")}
    settings |= {"budget": BUDGET, "val_share": 0.01, "workers": 2} | options
    prepare(str(input_dir), out_dir=out_dir, tokenizer_dir=tokenizer, **settings)
    return out_dir


def documents_of(folder: Path, split: str = "train") -> list[bytes]:
    """The tokens of every document, sorted."""
    found: list[bytes] = []
    for shard in Manifest(folder).splits[split].shards:
        tokens = np.fromfile(folder / shard.path, "<u2")
        ends = np.fromfile(folder / f"{shard.path}.index", "<u8").astype(int)
        assert ends[-1] == len(tokens)
        found += [part.tobytes() for part in np.split(tokens, ends[:-1])]
    return sorted(found)


@pytest.fixture(scope="module")
def sampled(sample_layout: Path, bpe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(sample_layout, tmp_path_factory.mktemp("sampled") / "tokens", bpe)


def test_every_domain_gets_its_share_and_less_than_a_document_more(
    sampled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = Manifest(sampled)
    tokens = {entry["domain"]: entry["tokens"] for entry in manifest.content["splits"]["train"]}
    assert set(tokens) == set(RECIPE["proportions"])
    longest = int(document_lengths(manifest, "train").max())
    for domain, share in RECIPE["proportions"].items():
        assert 0 <= tokens[domain] - round(share * BUDGET) < longest
        assert manifest.content["sampling"][domain] == {"wanted": round(share * BUDGET), "got": tokens[domain]}
    assert abs(manifest.splits["train"].tokens / BUDGET - 1) < 0.01
    assert 0 < manifest.splits["val"].tokens < 0.05 * BUDGET
    assert manifest.content["budget"] == BUDGET


def test_same_documents_for_any_number_of_tasks(sampled: Path, sample_layout: Path, bpe: Path, tmp_path: Path) -> None:
    for tasks in (1, 3, 8):
        out = run(sample_layout, tmp_path / f"tokens{tasks}", bpe, tasks=tasks)
        for split in ("train", "val"):
            assert documents_of(out, split) == documents_of(sampled, split)


def test_both_layouts_give_the_same_documents(sampled: Path, full_layout: Path, bpe: Path, tmp_path: Path) -> None:
    out = run(full_layout, tmp_path / "tokens", bpe)
    assert documents_of(out) == documents_of(sampled)
    assert documents_of(out, "val") == documents_of(sampled, "val")


def test_a_larger_sample_contains_a_smaller_one(sampled: Path, sample_layout: Path, bpe: Path, tmp_path: Path) -> None:
    small = run(sample_layout, tmp_path / "small", bpe, budget=BUDGET // 5)
    for split in ("train", "val"):
        assert set(documents_of(small, split)) < set(documents_of(sampled, split))
    other = run(sample_layout, tmp_path / "other", bpe, budget=BUDGET // 5, seed=43)
    assert len(set(documents_of(small)) & set(documents_of(other))) < 0.5 * len(documents_of(other))


def test_a_wrong_estimate_costs_a_pass_and_changes_nothing(
    sampled: Path, sample_layout: Path, bpe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inheritune_lit.prepare import passes

    monkeypatch.chdir(sampled.parent)
    estimates: list[dict[str, float]] = []
    true_estimate = passes.estimate

    def wrong(job: passes.Job) -> dict[str, float]:
        estimates.append({domain: 6 * size for domain, size in true_estimate(job).items()})
        return estimates[-1]

    monkeypatch.setattr(passes, "estimate", wrong)
    kept = bytes_of(sampled)
    run(sample_layout, sampled, bpe, overwrite=True)
    assert len(estimates) == 1
    assert bytes_of(sampled) == kept


def without_books(sample_layout: Path, folder: Path, documents: int = 0) -> Path:
    shutil.copytree(sample_layout, folder)
    (folder / "book_sample.jsonl").unlink()
    if documents:
        (folder / "book_sample.jsonl").write_bytes(jsonl(texts("book", documents)))
    return folder


def test_a_missing_domain(sample_layout: Path, bpe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = without_books(sample_layout, tmp_path / "corpus")
    with pytest.raises(InheritError, match=r"book: 0 tokens of 2,700 wanted, 2,700 are missing \(no text at all\)"):
        run(corpus, tmp_path / "tokens", bpe)
    assert not (tmp_path / ".tokens.staging").exists()
    out = run(corpus, tmp_path / "tokens", bpe, renormalize=True)
    assert (
        "book falls short of its share: 0 tokens of 2,700. The other domains have the rest" in capsys.readouterr().out
    )
    content = Manifest(out).content
    assert content["renormalize"] is True
    assert content["sampling"]["book"] == {"wanted": 0, "got": 0}
    assert content["sampling"]["common_crawl"]["wanted"] == round(BUDGET * 0.67 / 0.955)
    assert abs(Manifest(out).splits["train"].tokens / BUDGET - 1) < 0.01


def test_a_domain_with_too_little_text(
    sample_layout: Path, bpe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = without_books(sample_layout, tmp_path / "corpus", documents=10)
    message = r"book: (\d+) tokens of 2,700 wanted, [\d,]+ are missing \(\d+\.\d\d epochs over it\)"
    with pytest.raises(InheritError, match=message):
        run(corpus, tmp_path / "tokens", bpe)
    # the work that was done is kept: only what is made of it changes
    repeated = run(corpus, tmp_path / "tokens", bpe, allow_repeat=True)
    content = Manifest(repeated).content
    book = content["sampling"]["book"]
    assert content["allow_repeat"] is True
    assert abs(book["got"] - 2700) < 60
    assert book["available"] < 800
    documents = [d for d in documents_of(repeated) if documents_of(repeated).count(d) > 1]
    assert len(set(documents)) >= 9
    assert "book is repeated: " in capsys.readouterr().out

    shared = run(corpus, tmp_path / "shared", bpe, renormalize=True)
    content = Manifest(shared).content
    assert content["sampling"]["book"] == {"wanted": book["available"], "got": book["available"]}
    assert abs(Manifest(shared).splits["train"].tokens / BUDGET - 1) < 0.01
    with pytest.raises(InheritError, match=r"was made otherwise:\n  renormalize: true before, null|absent now"):
        run(corpus, tmp_path / "shared", bpe)


def test_repeating_takes_validation_documents_once(bpe: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/book_sample.jsonl").write_bytes(jsonl(texts("book", 40)))
    options = {"proportions": {"book": 1.0}, "budget": 7000, "allow_repeat": True, "val_share": 0.3}
    out = run(tmp_path / "corpus", tmp_path / "tokens", bpe, **options)
    train, val = documents_of(out), documents_of(out, "val")
    assert len(train) > 2 * len(set(train))
    assert len(val) == len(set(val)) == 40 - len(set(train))


def test_another_way_out_after_a_half_done_cut(
    sample_layout: Path, bpe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inheritune_lit.prepare import passes

    corpus = without_books(sample_layout, tmp_path / "corpus", documents=10)
    monkeypatch.chdir(tmp_path)
    expected = bytes_of(run(corpus, Path("tokens"), bpe, renormalize=True))
    Path("tokens").rename("kept")
    cut = passes.cut_out

    def cut_and_die(*args: Any) -> None:
        cut(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(passes, "cut_out", cut_and_die)
    with pytest.raises(KeyboardInterrupt):
        run(corpus, Path("tokens"), bpe, allow_repeat=True)
    assert list(tmp_path.glob(".tokens.staging/book/train/*.ds"))
    monkeypatch.setattr(passes, "cut_out", cut)
    assert bytes_of(run(corpus, Path("tokens"), bpe, renormalize=True)) == expected


def test_a_share_of_zero_leaves_a_domain_out(sample_layout: Path, bpe: Path, tmp_path: Path) -> None:
    proportions = dict.fromkeys(RECIPE["proportions"], 0.0) | {"c4": 0.5, "arxiv": 0.5}
    out = run(sample_layout, tmp_path / "tokens", bpe, budget=2000, proportions=proportions, val_share=0.2)
    assert {entry["domain"] for entry in Manifest(out).content["splits"]["train"]} == {"c4", "arxiv"}
    assert [file["path"] for file in Manifest(out).content["source"]["files"]] == [
        "arxiv_sample.jsonl",
        "c4_sample.jsonl",
    ]


def test_dry_run_says_what_is_wanted(
    sample_layout: Path, bpe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(sample_layout, tmp_path / "tokens", bpe, dry_run=True)
    assert "common_crawl: 5 files" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_command_in_the_manifest_makes_the_same(sampled: Path) -> None:
    import shlex

    content = Manifest(sampled).content
    flags = dict(word[2:].split("=", 1) for word in shlex.split(content["command"]) if word.startswith("--"))
    assert json.loads(flags["proportions"]) == RECIPE["proportions"]
    assert json.loads(flags["domains"]) == RECIPE["domains"]
    assert (flags["budget"], flags["seed"]) == (str(BUDGET), str(RECIPE["seed"]))
