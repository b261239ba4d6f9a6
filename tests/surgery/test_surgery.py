import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.models import ARCHITECTURES, make_checkpoint
from litgpt.config import Config

from inheritune_lit import gpt2
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import sha256_file
from inheritune_lit.checkpoint.copy import check_finite
from inheritune_lit.checkpoint.read_ahead import read_ahead
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.surgery.command import surgery
from inheritune_lit.surgery.compare import compare_logits
from inheritune_lit.verify import verify

MakeCheckpoint = Callable[..., Path]


def load(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "lit_model.pth", weights_only=True)


@pytest.mark.parametrize("layers", ["3", "1,2,5", "::2"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_target_is_the_reference_without_the_other_blocks(
    checkpoint: MakeCheckpoint, tmp_path: Path, architecture: str, layers: str
) -> None:
    source = checkpoint(architecture)
    surgery(source, layers=layers, out_dir=tmp_path / "target")
    verify(tmp_path / "target", source=source)

    # the model of the folder's own config takes every tensor
    model = gpt2.build(Config.from_checkpoint(tmp_path / "target"))
    model.load_state_dict(load(tmp_path / "target"), strict=True)
    # negative control: other blocks give other logits
    blocks = json.loads((tmp_path / "target/inheritance.json").read_text())["blocks"]
    with pytest.raises(InheritError, match="logits .* differ"):
        compare_logits(
            tmp_path / "target", source, [*blocks[:-1], blocks[-1] - 1 if blocks[-1] - 1 not in blocks else 5]
        )


def test_per_layer_settings_follow_their_blocks(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    source = checkpoint("gemma")
    surgery(source, layers="1,2,5", out_dir=tmp_path / "target")
    config = Config.from_checkpoint(tmp_path / "target")
    assert (config.sliding_window_indices, config.rope_indices) == ([1, 0, 0], [1, 0, 0])
    hf_config = json.loads((tmp_path / "target/config.json").read_text())
    assert hf_config["num_hidden_layers"] == 3
    assert hf_config["layer_types"] == ["sliding_attention", "full_attention", "full_attention"]
    # a wrong list is noticed by the logits although every tensor is right
    settings = yaml.safe_load((tmp_path / "target/model_config.yaml").read_text())
    settings["sliding_window_indices"] = [0, 0, 0]
    (tmp_path / "target/model_config.yaml").write_text(yaml.dump(settings))
    with pytest.raises(InheritError, match="logits .* differ"):
        compare_logits(tmp_path / "target", source, [1, 2, 5])


def test_dense_blocks_of_a_mixture_are_counted(checkpoint: MakeCheckpoint) -> None:
    from inheritune_lit.checkpoint.layers import slice_config

    config = Config.from_name(
        "Mixtral-8x7B-v0.1", **ARCHITECTURES["moe"][1], first_k_dense_replace=2, moe_intermediate_size=8
    )
    assert slice_config(config, [1, 2, 3]).first_k_dense_replace == 1
    assert slice_config(config, [3, 4]).first_k_dense_replace == 0
    with pytest.raises(InheritError, match="mixture-of-experts block before a dense one"):
        slice_config(config, [3, 0])


def test_finished_run_is_a_source_and_its_optimizer_state_is_not_read(llama: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(llama, run)
    model = {f"_orig_mod.{name}": tensor for name, tensor in load(llama).items()}
    optimizer = {"state": {0: {"exp_avg": torch.full((2**20,), float("nan"))}}}
    torch.save({"model": model, "optimizer": optimizer, "iter_num": 3}, run / "lit_model.pth")
    surgery(run, layers="2", out_dir=tmp_path / "target")
    surgery(llama, layers="2", out_dir=tmp_path / "from_bare")
    assert load(tmp_path / "target").keys() == load(tmp_path / "from_bare").keys()
    assert sha256_file(tmp_path / "target/lit_model.pth") == sha256_file(tmp_path / "from_bare/lit_model.pth")


def test_tied_embeddings_stay_tied(llama: Path, tmp_path: Path) -> None:
    tied = tmp_path / "tied"
    shutil.copytree(llama, tied)
    state_dict = load(llama)
    state_dict["lm_head.weight"] = state_dict["transformer.wte.weight"]
    torch.save(state_dict, tied / "lit_model.pth")
    surgery(tied, layers="2", out_dir=tmp_path / "target")
    target = load(tmp_path / "target")
    assert target["lm_head.weight"].data_ptr() == target["transformer.wte.weight"].data_ptr()
    surgery(llama, layers="2", out_dir=tmp_path / "untied")
    parameters = [
        json.loads((tmp_path / d / "inheritance.json").read_text())["parameters"] for d in ("target", "untied")
    ]
    assert parameters[1] - parameters[0] == 64 * 32


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtype_converts(llama: Path, tmp_path: Path, dtype: str) -> None:
    surgery(llama, layers="2", out_dir=tmp_path / "target", dtype=dtype)  # type: ignore[arg-type]
    source, target = load(llama), load(tmp_path / "target")
    assert all(torch.equal(target[name], source[name].to(getattr(torch, dtype))) for name in target)
    verify(tmp_path / "target", source=llama)


def test_views_and_transposes_are_written_as_they_read(llama: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(llama, odd)
    state_dict = load(llama)
    big = torch.randn(3, 64, 32)
    state_dict["lm_head.weight"] = big[1]
    state_dict["transformer.wte.weight"] = torch.randn(32, 64).T
    torch.save(state_dict, odd / "lit_model.pth")
    surgery(odd, layers="2", out_dir=tmp_path / "target")
    target = load(tmp_path / "target")
    assert torch.equal(target["lm_head.weight"], big[1])
    assert torch.equal(target["transformer.wte.weight"], state_dict["transformer.wte.weight"])
    assert (tmp_path / "target/lit_model.pth").stat().st_size < (llama / "lit_model.pth").stat().st_size


def test_receipt_tells_where_everything_came_from(llama: Path, tmp_path: Path) -> None:
    surgery(llama, layers="0-1,4", out_dir=tmp_path / "target")
    receipt = json.loads((tmp_path / "target/inheritance.json").read_text())
    assert receipt["blocks"] == [0, 1, 4]
    assert receipt["source"]["name"] == llama.name
    assert receipt["source"]["fingerprint"] == Weights(llama / "lit_model.pth").fingerprint()
    assert set(receipt["files"]) == {p.name for p in (tmp_path / "target").iterdir()} - {"inheritance.json"}
    for name, entry in receipt["files"].items():
        assert entry == {
            "bytes": (tmp_path / "target" / name).stat().st_size,
            "sha256": sha256_file(tmp_path / "target" / name),
        }


def test_verify_names_what_differs(llama: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    surgery(llama, layers="2", out_dir=target)
    verify(target)
    (target / "config.json").write_text('{"num_hidden_layers": 6}')
    data = bytearray((target / "lit_model.pth").read_bytes())
    data[len(data) // 2] ^= 1
    (target / "lit_model.pth").write_bytes(data)
    (target / "tokenizer.json").unlink()
    with pytest.raises(
        InheritError, match=r"config.json has \d+ bytes.*lit_model.pth has SHA.*tokenizer.json is missing"
    ):
        verify(target)


def test_verify_refuses_another_source(llama: Path, tmp_path: Path) -> None:
    surgery(llama, layers="2", out_dir=tmp_path / "target")
    other = make_checkpoint(tmp_path / "other")
    state_dict = load(other)
    state_dict["transformer.h.5.norm_1.weight"] += 1  # a block that was dropped: the source is another all the same
    torch.save(state_dict, other / "lit_model.pth")
    with pytest.raises(InheritError, match="is not the source of"):
        verify(tmp_path / "target", source=other)


def test_target_with_swapped_blocks_is_caught(llama: Path, tmp_path: Path) -> None:
    from inheritune_lit.surgery.compare import compare_tensors
    from inheritune_lit.surgery.starts import origins

    surgery(llama, layers="2", out_dir=tmp_path / "target")
    target, source = Weights(tmp_path / "target/lit_model.pth"), Weights(llama / "lit_model.pth")
    compare_tensors(target, source, origins("inherit", source, [0, 1]))
    with pytest.raises(InheritError, match="differs from"):
        compare_tensors(target, source, origins("inherit", source, [0, 2]))


class Sentinel:
    """Pickles into a call that writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def broken(source: Path, how: str) -> None:
    weights = source / "lit_model.pth"
    state_dict = load(source)
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "bit flipped":
        data = bytearray(weights.read_bytes())
        data[Weights(weights).record("transformer.h.0.attn.proj.weight").offset + 5] ^= 16
        weights.write_bytes(data)
    elif how == "not a zip":
        weights.write_bytes(b"weights" * 1000)
    elif how == "code":
        torch.save({"model": state_dict, "extra": Sentinel(source / "ran")}, weights)
    elif how == "no tensors":
        torch.save({"a": 1}, weights)
    elif how == "missing file":
        weights.unlink()
    elif how == "no config":
        (source / "model_config.yaml").unlink()
    elif how == "vocabulary":
        config = yaml.safe_load((source / "model_config.yaml").read_text())
        (source / "model_config.yaml").write_text(yaml.dump(config | {"padded_vocab_size": 128}))
    elif how == "unknown config key":
        (source / "model_config.yaml").write_text("n_layers: 6\n")
    elif how == "depth":
        (source / "config.json").write_text('{"num_hidden_layers": 7}')
    elif how == "extra tensor":
        torch.save(state_dict | {"transformer.h.0.attn.rotary": torch.zeros(3)}, weights)
    elif how == "lost tensor":
        state_dict.pop("transformer.ln_f.weight")
        torch.save(state_dict, weights)
    else:
        state_dict["transformer.h.1.mlp.proj.weight"][3, 4] = float(how)
        torch.save(state_dict, weights)


ERRORS = {
    "truncated": "is not a whole PyTorch checkpoint",
    "bit flipped": r"is corrupt: tensor 'transformer.h.0.attn.proj.weight' has CRC-32",
    "not a zip": "is not a whole PyTorch checkpoint",
    "code": "was not opened: it holds something other than tensors",
    "no tensors": "holds no model",
    "missing file": "is missing: expected the weights of a litGPT checkpoint",
    "no config": "model_config.yaml is missing: .* is no checkpoint folder, neither litGPT's nor",
    "vocabulary": r"contradicts .*lm_head.weight has shape \(64, 32\), expected \(128, 32\)",
    "unknown config key": "litGPT does not accept .*n_layers",
    "depth": "states depth .*7.*expected 6",
    "extra tensor": "transformer.h.0.attn.rotary is not in the model",
    "lost tensor": "transformer.ln_f.weight is missing",
    "nan": r"'transformer.h.1.mlp.proj.weight' of .* holds 1 NaN or infinite values of 1536.*--no-check_finite",
    "inf": "holds 1 NaN or infinite",
    "-inf": "holds 1 NaN or infinite",
}


@pytest.mark.parametrize("how", ERRORS)
def test_bad_source_is_named_and_nothing_is_left(checkpoint: MakeCheckpoint, tmp_path: Path, how: str) -> None:
    source = checkpoint()
    broken(source, how)
    with pytest.raises(InheritError, match=ERRORS[how]):
        surgery(source, layers="2", out_dir=tmp_path / "out/target")
    assert not (source / "ran").exists()
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("dtype", [None, "float16"])  # as it is, and converted: its CRC-32 is known from other places
@pytest.mark.parametrize("what", ["small", "nan"])
def test_corrupt_tensor_is_called_corrupt_whatever_is_in_it(
    checkpoint: MakeCheckpoint, tmp_path: Path, dtype: Any, what: str
) -> None:
    source = checkpoint()
    path = source / "lit_model.pth"
    record = Weights(path).record("transformer.h.0.attn.proj.weight")
    with path.open("r+b") as file:
        file.seek(record.offset + 1)
        file.write(b"\x01" if what == "small" else b"\xff\xff\x7f")  # float32, little-endian
    with pytest.raises(InheritError, match=r"is corrupt: tensor 'transformer.h.0.attn.proj.weight' has CRC-32"):
        surgery(source, layers="2", out_dir=tmp_path / "out", dtype=dtype)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e5m2])
@pytest.mark.parametrize("shape", [(), (3, 5)])
def test_finite(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    limits = torch.finfo(dtype)
    for value in torch.tensor([limits.max, limits.min, -0.0, limits.tiny], dtype=torch.float64).to(dtype):
        check_finite(value.expand(shape), "w", Path("file"))
    for bad in (torch.nan, -torch.nan, torch.inf, -torch.inf):
        tensor = torch.zeros(shape).to(dtype)
        tensor.view(-1)[-1] = bad
        with pytest.raises(InheritError, match="holds 1 NaN or infinite"):
            check_finite(tensor, "w", Path("file"))


def test_nan_in_a_dropped_block_or_on_request_is_no_error(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    source = checkpoint()
    broken(source, "nan")
    surgery(source, layers="0,2", out_dir=tmp_path / "without")
    surgery(source, layers="2", out_dir=tmp_path / "kept", check_finite=False)
    verify(tmp_path / "kept")


def test_existing_output_is_kept_unless_overwritten(llama: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "precious").write_text("data")
    with pytest.raises(InheritError, match="exists already.*--overwrite"):
        surgery(llama, layers="2", out_dir=target)
    assert (target / "precious").read_text() == "data"
    surgery(llama, layers="2", out_dir=target, overwrite=True)
    assert not (target / "precious").exists()
    verify(target)
    assert [p.name for p in tmp_path.iterdir()] == ["target"]
    with pytest.raises(InheritError, match="would replace"):
        surgery(target, layers="1", out_dir=target, overwrite=True)


def run(*arguments: object, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inheritune_lit.surgery", *map(str, arguments)]
    if limit is not None:  # the largest file in KiB that the process may write
        command = ["bash", "-c", f'ulimit -f {limit}; exec "$@"', "bash", *command]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_full_disk_leaves_the_old_target(llama: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    surgery(llama, layers="1", out_dir=target)
    done = run(llama, "--layers", 6, "--out_dir", target, "--overwrite", limit=100)
    assert done.returncode == 1, done.stderr
    assert "disk is full or a size limit was hit" in done.stderr or "No room for" in done.stderr
    assert "Traceback" not in done.stderr
    verify(target)
    assert [p.name for p in tmp_path.iterdir()] == ["target"]


def test_killed_at_any_moment_leaves_whole_or_nothing(llama: Path, tmp_path: Path) -> None:
    """kill -9 at the entry of every file operation of the commit, in a child process each."""
    script = """
import os, signal, sys
from pathlib import Path
import litgpt.model, litgpt.utils  # paid for once, before the forks
from inheritune_lit.base import files, folders
from inheritune_lit.surgery import command as s
left = int(sys.argv[3])
def deadly(function):
    def wrapped(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapped
deaths = ((folders, ["sync", "_replace"]), (files, ["sync"]), (s, ["copy_tensors", "_write_configs", "write_json"]))
for module, names in deaths:
    for name in names:
        setattr(module, name, deadly(getattr(module, name)))
Path.rename = deadly(Path.rename)
for target in range(1000):
    if os.fork() == 0:
        left = target
        s.surgery(Path(sys.argv[1]), layers="2", out_dir=Path(sys.argv[2]) / "target", overwrite=True)
        os._exit(0)
    _, status = os.wait()
    yes = (Path(sys.argv[2]) / "target").exists()
    if yes:  # what a reader sees is whole
        from inheritune_lit.verify import verify
        verify(Path(sys.argv[2]) / "target")
    if (Path(sys.argv[2]) / ".target.old").exists() and not yes:
        yes = "set aside"
    print("killed" if os.WIFSIGNALED(status) else "ended", {True: "whole", False: "nothing"}.get(yes, yes), flush=True)
    if not os.WIFSIGNALED(status):
        break
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, llama, tmp_path, "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcomes = [line for line in done.stdout.splitlines() if line.startswith(("killed", "ended"))]
    assert outcomes[-1] == "ended whole"
    assert outcomes.count("killed nothing") >= 8, outcomes
    assert "killed whole" in outcomes
    # once there was a target, it was never lost
    first = outcomes.index("killed whole")
    assert "killed nothing" not in outcomes[first:], outcomes


def test_command_line(llama: Path, tmp_path: Path) -> None:
    done = run(llama, "--layers", "2", "--out_dir", tmp_path / "target", "--dry_run")
    assert done.returncode == 0, done.stderr
    assert "2: 0, 1" in done.stdout
    assert "parameters" in done.stdout
    assert "embeddings" in done.stdout
    assert not (tmp_path / "target").exists()
    done = run(llama, "--layers", "9", "--out_dir", tmp_path / "target")
    assert done.returncode == 1
    assert "The source has 6 blocks, numbered 0 to 5" in done.stderr
    assert "Traceback" not in done.stderr


def test_reading_ahead_never_overwrites_a_tensor_in_use(llama: Path) -> None:
    """Nor one that is still used after the next was asked for, whatever the sizes of neighbours in the buffer."""
    expected, weights = load(llama), Weights(llama / "lit_model.pth")

    def is_what_was_read(name: str, tensor: torch.Tensor) -> bool:
        time.sleep(0.002)  # the other threads have the time to do harm
        return torch.equal(tensor, expected[name])

    with ThreadPoolExecutor(max_workers=1) as user:
        for names in (
            sorted(expected),
            sorted(expected, reverse=True),
            sorted(expected, key=lambda n: expected[n].numel()),
        ):
            uses: list[Future[bool]] = []
            reads = [(weights.record(name).size, partial(weights.read, name)) for name in names]
            for name, tensor in zip(names, read_ahead(reads, partial(uses.__getitem__, -1)), strict=True):
                uses.append(user.submit(is_what_was_read, name, tensor))
            assert all(use.result() for use in uses)
