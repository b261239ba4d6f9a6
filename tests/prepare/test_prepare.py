import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from helpers.models import TEXTS, write_bpe, write_sentencepiece
from helpers.texts import DOCUMENTS, bytes_of, documents_of, jsonl, run, write_words
from litgpt import Tokenizer

from inheritune_lit.base.errors import InheritError
from inheritune_lit.data.manifest import Manifest
from inheritune_lit.prepare.command import prepare
from inheritune_lit.prepare.sampling import split_of


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three domains in all kinds of files: DOCUMENTS dealt out, none twice, and some blank ones."""
    folder = tmp_path / "corpus"
    for name, data in {
        "plays/first.txt": b"\xef\xbb\xbf" + DOCUMENTS[0].encode() + b"\r\nend",
        "plays/second.txt.gz": gzip.compress(DOCUMENTS[1].encode()),
        "plays/blank.txt": b" \n\n",
        "code/a.jsonl": jsonl([*DOCUMENTS[2:20], "  "]),
        "code/b.jsonl.gz": gzip.compress(jsonl(DOCUMENTS[20:40])),
        "web/c.jsonl.zst": b"".join(zstandard.compress(jsonl(DOCUMENTS[i : i + 9])) for i in range(40, 80, 9)),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("write", [write_bpe, write_sentencepiece])
def test_shards_hold_what_litgpt_encodes(
    corpus: Path, tmp_path: Path, write: Callable[..., Path], bos: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = write(tmp_path / "tokenizer", add_bos=bos)
    out = run(corpus, tmp_path / "tokens", tokenizer, tasks=4)
    encode, eos = Tokenizer(tokenizer).encode, Tokenizer(tokenizer).eos_id
    dealt: dict[str, list[str]] = {
        # the order of a domain is that of the tasks, and task r of 4 has every fourth file from r on
        "code": DOCUMENTS[2:40],
        "plays": [DOCUMENTS[0] + "\r\nend", DOCUMENTS[1]],
        "web": DOCUMENTS[40:85],
    }
    assert len(documents_of(out)) >= 5
    for domain, texts in dealt.items():
        for split in ("train", "val"):
            chosen = [encode(t).tolist() for t in texts if split_of(t, 42, 0.3) == split]
            expected = [[*ids, eos] for ids in chosen]
            assert documents_of(out).get((domain, split), []) == expected
    content = Manifest(out).content
    assert content["quarantine"] == {"blank document": 2}
    listed = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert listed == [
        {"file": "code/a.jsonl", "line": 19, "problem": "blank document"},
        {"file": "plays/blank.txt", "line": 1, "problem": "blank document"},
    ]
    assert {file["path"]: file["size"] for file in content["source"]["files"]} == {
        str(path.relative_to(corpus)): path.stat().st_size for path in corpus.rglob("*.*")
    }
    assert list(tmp_path.glob(".*")) == []
    assert "quarantine.jsonl: 2 blank document\n" in capsys.readouterr().out


def test_datatrove_reads_the_shards(corpus: Path, tmp_path: Path, bpe: Path) -> None:
    from datatrove.utils.dataset import DatatroveFileDataset

    out = run(corpus, tmp_path / "tokens", bpe)
    shard = Manifest(out).splits["train"].shards[0]
    sequences = DatatroveFileDataset(str(out / shard.path), seq_len=shard.tokens - 1, token_size=2)
    assert len(sequences) == 1
    assert sequences[0]["input_ids"].tolist() == np.fromfile(out / shard.path, "<u2").tolist()


def test_wide_vocabulary(tmp_path: Path) -> None:
    tokenizer = write_words(tmp_path / "tokenizer", 70_000)
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.jsonl").write_bytes(jsonl(["w69999 w1", "w65536"]))
    (tmp_path / "text/b.txt").write_text("w65535")
    out = run(tmp_path / "text", tmp_path / "tokens", tokenizer, val_share=0, val_glob="b*")
    assert Manifest(out).dtype == "uint32"
    assert documents_of(out) == {("text", "train"): [[69999, 1, 0], [65536, 0]], ("text", "val"): [[65535, 0]]}


def test_same_bytes_with_any_number_of_workers(corpus: Path, tmp_path: Path, bpe: Path) -> None:
    written = []
    for workers in (1, 2):
        out = run(corpus, tmp_path / "tokens", bpe, workers=workers)
        written.append(bytes_of(out))
        out.rename(tmp_path / f"kept{workers}")
    assert written[0] == written[1]
    assert len(written[0]) > 10


def test_a_document_keeps_its_split(corpus: Path, tmp_path: Path, bpe: Path) -> None:
    def split(out: Path) -> dict[str, set[tuple[int, ...]]]:
        found = documents_of(out)
        return {
            name: {tuple(ids) for (_, split), documents in found.items() if split == name for ids in documents}
            for name in ("train", "val")
        }

    before = split(run(corpus, tmp_path / "before", bpe))
    (corpus / "web/c.jsonl.zst").rename(corpus / "code/renamed.jsonl.zst")
    (corpus / "a_new_domain").mkdir()
    (corpus / "a_new_domain/new.jsonl").write_bytes(jsonl([f"new {i}" for i in range(50)]))
    after = split(run(corpus, tmp_path / "after", bpe, tasks=2))
    assert before["train"] < after["train"]
    assert before["val"] < after["val"]
    assert not after["train"] & after["val"]
    other = split(run(corpus, tmp_path / "other", bpe, seed=43))
    assert other["val"] | other["train"] == after["val"] | after["train"]
    assert other["val"] != after["val"]


def test_choice_of_the_split_is_frozen() -> None:
    """Another function would move documents from validation into training when a corpus is prepared again."""
    chosen = [i for i in range(200) if split_of(f"document {i}", 42, 0.05) == "val"]
    assert chosen == [8, 62, 68, 84, 107, 113, 168]
    share = sum(split_of(f"document {i}", 7, 0.25) == "val" for i in range(20_000)) / 20_000
    assert abs(share - 0.25) < 0.01  # 3 standard deviations


def test_val_glob_holds_out_whole_files(corpus: Path, tmp_path: Path, bpe: Path) -> None:
    found = documents_of(run(corpus, tmp_path / "tokens", bpe, val_share=0, val_glob="code/*.gz"))
    assert {place: len(documents) for place, documents in found.items()} == {
        ("code", "train"): 18,
        ("code", "val"): 20,
        ("plays", "train"): 2,
        ("web", "train"): 45 - 2,
    }
    with pytest.raises(InheritError, match=r"val_glob 'hamlet' matches 0 of the 6 files .* such as 'code/a\.jsonl'"):
        run(corpus, tmp_path / "other", bpe, val_glob="hamlet")
    with pytest.raises(InheritError, match=r"matches 6 of the 6 files .*expected some but not all"):
        run(corpus, tmp_path / "other", bpe, val_glob="*")


def test_done_already_changed_or_overwritten(
    corpus: Path, tmp_path: Path, bpe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run(corpus, tmp_path / "tokens", bpe)
    before = {path: path.stat() for path in out.rglob("*.*")}
    capsys.readouterr()
    run(corpus, out, bpe, workers=2)
    assert "is whole already" in capsys.readouterr().out
    assert {path: path.stat() for path in out.rglob("*.*")} == before

    with pytest.raises(InheritError, match=r"was made otherwise:\n  seed: 42 before, 43 now\nGive the same settings"):
        run(corpus, out, bpe, seed=43)
    (corpus / "plays/first.txt").write_text("another size")
    with pytest.raises(InheritError, match=r"files\.plays/first\.txt: \d+ before, 12 now"):
        run(corpus, out, bpe)
    run(corpus, out, bpe, seed=43, overwrite=True)
    assert Manifest(out).content["seed"] == 43
    next(iter(out.rglob("*.ds"))).write_bytes(b"")
    with pytest.raises(InheritError, match="has 0 bytes, the manifest expects"):
        run(corpus, out, bpe, seed=43)


def test_dry_run_writes_nothing(corpus: Path, tmp_path: Path, bpe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.rglob("*"))
    run(corpus, tmp_path / "tokens", bpe, dry_run=True)
    assert sorted(tmp_path.rglob("*")) == before
    shown = capsys.readouterr().out
    assert f"6 files, {sum(p.stat().st_size for p in corpus.rglob('*.*')):,} bytes" in shown
    assert "plays: 3 files" in shown
    assert "16 bits a token, no BOS, EOS 1 (</s>)" in shown


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"val_share": 1.0}, r"val_share is 1\.0, expected .* at least 0 and below 1"),
        ({"val_share": 0.0}, r"val_share is 0 and there is no val_glob"),
        ({"tasks": 0}, r"tasks is 0, expected at least 1"),
        ({"workers": -1}, r"workers is -1, expected at least 1"),
        ({"max_bad_share": 1.5}, r"max_bad_share is 1\.5, expected .* from 0 to 1"),
        ({"budget": 0}, r"budget is 0, expected at least 1 token"),
        ({"renormalize": True}, r"are about a budget of tokens: set budget too"),
        ({"budget": 99}, r"proportions has no domains, the input has code, plays, web\."),
        ({"budget": 99, "proportions": {"code": 1.0}}, r"proportions has code, the input has code, plays, web\."),
        ({"budget": 99, "proportions": {"code": 0.5, "plays": 0.3, "web": 0.3}}, r"add up to 1\.1, expected"),
        ({"val_share": 1e-9}, r"No tokens for the split 'val' from \d+ documents\. Set val_share \(1e-09\)"),
    ],
)
def test_settings_that_make_no_sense(
    corpus: Path, tmp_path: Path, bpe: Path, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InheritError, match=problem):
        run(corpus, tmp_path / "tokens", bpe, **options)
    assert not (tmp_path / "tokens").exists()


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("web/bad.jsonl", jsonl(["fine"]) + b"{", r"\n  web/bad\.jsonl, line 2: broken JSON"),
        ("web/bad.txt", b"fine\n\xff", r"\n  web/bad\.txt, line 2: not UTF-8"),
        (
            "web/bad.txt.gz",
            gzip.compress(b"text", mtime=0)[:-4],
            r"\n  web/bad\.txt\.gz, line 0: damaged file: cut short",
        ),
        ("web/bad.jsonl.zst", zstandard.compress(jsonl(["1"]))[:-4], r"\n  web/bad\.jsonl\.zst, line 0: damaged file"),
        ("web/nul.jsonl", jsonl(["a", "a\0"]), r"\n  web/nul\.jsonl, line 2: NUL character"),
        ("web/blank.jsonl.zst", zstandard.compress(jsonl([" "])), r"\n  web/blank\.jsonl\.zst, line 1: blank document"),
    ],
)
def test_too_much_that_cannot_be_used_stops_the_run(
    corpus: Path, tmp_path: Path, bpe: Path, name: str, data: bytes, problem: str
) -> None:
    (corpus / name).write_bytes(data)
    out = tmp_path / "tokens"
    with pytest.raises(InheritError, match=r"3 of 8\d documents are bad, more than max_bad_share \(0\.03\):") as error:
        run(corpus, out, bpe, max_bad_share=0.03)
    assert re.search(problem, str(error.value)), error.value
    assert not out.exists()
    listed = (tmp_path / ".tokens.staging/quarantine.jsonl").read_text()
    assert len(listed.splitlines()) == 3
    run(corpus, out, bpe, max_bad_share=0.05)  # nothing is done again
    assert (out / "quarantine.jsonl").read_text() == listed
    assert sum(Manifest(out).content["quarantine"].values()) == 3


def test_special_tokens_of_the_texts_are_counted(tmp_path: Path, bpe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And one EOS is at the end of each document, however many it brings itself."""
    texts = [f"{i} words{end}" for i in range(30) for end in ("", "</s>", "</s></s>", "</s> more", "</s>\n")]
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.jsonl").write_bytes(jsonl([*texts, "<s>begins"]))
    out = run(tmp_path / "text", tmp_path / "tokens", bpe)
    found = [ids for documents in documents_of(out).values() for ids in documents]
    assert len(found) == 151
    assert all(ids[-1] == 1 != ids[-2] for ids in found)
    assert sum(ids.count(1) for ids in found) == 151 + 60
    assert Manifest(out).content["special_tokens"] == {"</s>": 150, "<s>": 1}
    assert "Special tokens in the texts themselves: 150 </s>, 1 <s>" in capsys.readouterr().out


def test_empty_parts_are_no_bad_documents(corpus: Path, tmp_path: Path, bpe: Path) -> None:
    for i in range(20):
        (corpus / f"web/part-{i}.jsonl").touch()
        (corpus / f"web/part-{i}.jsonl.gz").write_bytes(gzip.compress(b""))
    content = Manifest(run(corpus, tmp_path / "tokens", bpe)).content
    assert content["quarantine"] == {"blank document": 2}
    assert sum(file.get("empty", False) for file in content["source"]["files"]) == 40


@pytest.mark.parametrize("model_config", [True, False])
def test_ids_that_the_model_has_no_embeddings_for(tmp_path: Path, bpe: Path, model_config: bool) -> None:
    """A tokenizer may have more tokens than the model, as Gemma 3's; only those that occur count."""
    folder = shutil.copytree(bpe, tmp_path / "tokenizer")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    size = len(tokenizer["model"]["vocab"])
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": size, "content": "<image>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    if model_config:
        (folder / "model_config.yaml").write_text(f"padded_vocab_size: {size}\n")
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.jsonl").write_bytes(jsonl(DOCUMENTS))
    assert Manifest(run(tmp_path / "text", tmp_path / "tokens", folder)).tokenizer["vocab_size"] == size + 1
    (tmp_path / "text/a.jsonl").write_bytes(jsonl([*DOCUMENTS, "an <image>"]))
    if not model_config:
        run(tmp_path / "text", tmp_path / "other", folder)
        return
    with pytest.raises(InheritError, match=rf"has the token id {size}, but the model .* embeddings for {size} only"):
        run(tmp_path / "text", tmp_path / "other", folder)


def test_an_error_leaves_no_warning(tmp_path: Path, bpe: Path) -> None:
    """In a process of its own: what multiprocessing leaks it says at the very end."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.jsonl").write_bytes(b'{"x": 1}')
    command = [sys.executable, "-m", "inheritune_lit", "prepare", str(tmp_path / "text"), "--tokenizer_dir", str(bpe)]
    done = subprocess.run([*command, "--out_dir", str(tmp_path / "x")], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "a.jsonl, line 1: expected an object" in done.stderr
    assert not re.search("semaphore|Traceback|Warning", done.stderr)


def test_the_wrong_key_stops_the_run(corpus: Path, tmp_path: Path, bpe: Path) -> None:
    (corpus / "web/bad.jsonl").write_bytes(jsonl(["fine"]) + b'{"x": 1}')
    with pytest.raises(InheritError, match=r"web/bad\.jsonl, line 2: .* got the keys \['x'\]"):
        run(corpus, tmp_path / "tokens", bpe)
    assert not (tmp_path / "tokens").exists()


def test_changed_settings_on_resume_are_refused(corpus: Path, tmp_path: Path, bpe: Path) -> None:
    (corpus / "web/bad.jsonl").write_bytes(b'{"x": 1}')
    with pytest.raises(InheritError, match="got the keys"):
        run(corpus, tmp_path / "tokens", bpe)
    with pytest.raises(InheritError, match=r"An interrupted run left .*\n  val_share: 0\.3 before, 0\.2 now"):
        run(corpus, tmp_path / "tokens", bpe, val_share=0.2)
    (corpus / "web/bad.jsonl").write_bytes(jsonl(["mended"]))
    with pytest.raises(InheritError, match=r"\n  files\.web/bad\.jsonl: 8 before, 19 now"):
        run(corpus, tmp_path / "tokens", bpe)
    run(corpus, tmp_path / "tokens", bpe, overwrite=True)
    assert list(tmp_path.glob(".*")) == []


# --- killed in the middle -------------------------------------------------------------------------------------------

LONG_TASKS = 3  # the first task is done at once; each of the others takes long enough to be killed in
ARGUMENTS = ["../corpus", "--out_dir=tokens", "--tokenizer_dir=../bpe", "--val_share=0.3", "--workers=1"]


@pytest.fixture(scope="module")
def long_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with corpus/, bpe/ and undisturbed/tokens, which an undisturbed run made while another was refused."""
    folder = tmp_path_factory.mktemp("long")
    write_bpe(folder / "bpe")
    (folder / "corpus").mkdir()
    (folder / "corpus/0.jsonl").write_bytes(jsonl(DOCUMENTS))
    for i in range(1, LONG_TASKS):
        (folder / f"corpus/{i}.jsonl").write_bytes(jsonl([f"{t} {i} {n}" for n in range(8000) for t in TEXTS]))
    with started(folder / "undisturbed") as process:
        with pytest.raises(InheritError, match=r"Another process is writing .*\.tokens\.staging now"):
            prepare(str(folder / "corpus"), out_dir=folder / "undisturbed/tokens", tokenizer_dir=folder / "bpe")
        assert process.wait() == 0
    return folder


class started:
    """Runs prepare in a folder by itself, and waits until its first task is done and its second is not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> "subprocess.Popen[str]":
        self.folder.mkdir()
        command = [sys.executable, "-m", "inheritune_lit", "prepare", *ARGUMENTS]
        self.process = subprocess.Popen(command, cwd=self.folder, stderr=subprocess.PIPE, text=True)
        markers = self.folder / ".tokens.staging/.work/completions"
        while not (markers / "00000").exists():
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.01)
        assert not (markers / "00001").exists()
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def workers_of(folder: Path) -> Iterator[int]:
    """Process ids of the workers that write into a folder: all of them hold workers.lock open."""
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if descriptor.readlink() == folder / ".tokens.staging/.work/workers.lock":
                yield int(descriptor.parts[2])
        except OSError:  # gone meanwhile
            continue


def resume_and_compare(folder: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = folder / ".tokens.staging"
    (finished,) = staged.glob("*/train/00000.ds")
    before = finished.stat()
    assert not (staged / ".work/completions/00001").exists()
    monkeypatch.chdir(folder)
    prepare("../corpus", out_dir=Path("tokens"), tokenizer_dir=Path("../bpe"), val_share=0.3, workers=1)
    after = (folder / "tokens" / finished.relative_to(staged)).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "a finished task was done again"
    assert bytes_of(folder / "tokens") == bytes_of(undisturbed)
    assert len(bytes_of(undisturbed)) == 4 * LONG_TASKS + 1


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_killed_parent(long_corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = long_corpus / "killed_parent"
    with started(folder) as process:
        assert len(set(workers_of(folder))) == 1
        process.send_signal(signal.SIGKILL)
        process.wait()
    resume_and_compare(folder, long_corpus / "undisturbed/tokens", monkeypatch)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_killed_worker(long_corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = long_corpus / "killed_worker"
    with started(folder) as process:
        for worker in set(workers_of(folder)):
            os.kill(worker, signal.SIGKILL)
        assert process.stderr is not None
        shown = process.stderr.read()
        assert process.wait() == 1
    assert "A worker process died without a message" in shown
    assert "Traceback" not in shown
    resume_and_compare(folder, long_corpus / "undisturbed/tokens", monkeypatch)
