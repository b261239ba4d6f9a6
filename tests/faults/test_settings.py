"""Hugging Face folders whose settings make transformers run code, told to trust none: refused wherever one is met."""

import contextlib
import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import transformers
from helpers.faults import Fault
from transformers import AutoConfig, AutoModelForCausalLM, dynamic_module_utils

from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.folder import WEIGHTS
from inheritune_lit.evaluate import harness
from inheritune_lit.evaluate.command import evaluate
from inheritune_lit.export.command import export_checkpoint
from inheritune_lit.export.reload import reload
from inheritune_lit.recipes.check.validate import validate_file
from inheritune_lit.surgery.command import surgery

KERNELS = """
from pathlib import Path
from unittest.mock import MagicMock

Device = LayerRepository = Mode = MagicMock()
register_kernel_mapping = replace_kernel_forward_from_hub = use_kernel_forward_from_hub = MagicMock()


def get_kernel(repository, **_):
    Path({sentinel!r}).touch()
    raise RuntimeError(repository)
"""
KERNEL = "attacker/kernel"
BACKBONE = """
from pathlib import Path

from transformers import PretrainedConfig


class Mine(PretrainedConfig):
    model_type = "mine"


Path({sentinel!r}).touch()
"""


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Path]:
    """A file that is there if code has run: the package `kernels` is one that writes it when a kernel is asked for."""
    path, package = tmp_path / "ran", tmp_path / "site/kernels/__init__.py"
    package.parent.mkdir(parents=True)
    package.write_text(KERNELS.format(sentinel=str(path)))
    hub_kernels = importlib.import_module("transformers.integrations.hub_kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path / "site")
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
        importlib.reload(hub_kernels)
        yield path
    del sys.modules["kernels"]
    importlib.reload(hub_kernels)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A Hugging Face folder with a small Llama."""
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, vocab_size=8)).save_pretrained(tmp_path / "small")
    return tmp_path / "small"


def planted(folder: Path, **settings: Any) -> Path:
    path = folder / "config.json"
    stated = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(stated | settings))
    return folder


def adapter(folder: Path) -> Path:
    """config.json is harmless; the one that transformers reads is in another folder."""
    other = folder.parent / "other"
    shutil.copytree(folder, other)
    planted(other, _attn_implementation=KERNEL)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(other)}))
    return folder


def backbone(folder: Path) -> Path:
    """A model type whose config opens the one of its backbone, and says itself that its code is to be trusted."""
    other = folder.parent / "other"
    other.mkdir()
    (other / "code.py").write_text(BACKBONE.format(sentinel=str(folder.parent / "ran")))
    planted(other, model_type="mine", auto_map={"AutoConfig": "code.Mine"})
    detector = {"model_type": "mine", "_name_or_path": str(other)}
    return planted(folder, model_type="lightglue", trust_remote_code=True, keypoint_detector_config=detector)


def from_pretrained(folder: Path) -> None:
    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def from_config(folder: Path) -> None:
    """As export makes the model that it writes."""
    stated = json.loads((folder / "config.json").read_text())
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**stated), trust_remote_code=False)


# what is planted, and how transformers then runs it; None: it does not in this release
PLANTED: dict[str, tuple[Callable[[Path], Path], Callable[[Path], None] | None]] = {
    "_attn_implementation_internal": (lambda f: planted(f, _attn_implementation_internal=KERNEL), from_pretrained),
    "_attn_implementation": (lambda f: planted(f, _attn_implementation=KERNEL), from_pretrained),
    "attn_implementation": (lambda f: planted(f, attn_implementation=KERNEL), from_config),
    "_attn_implementation_autoset": (lambda f: planted(f, _attn_implementation_autoset=True), None),
    "a nested one": (lambda f: planted(f, parts=[{"text_config": {"_attn_implementation": KERNEL}}]), None),
    "trust_remote_code": (backbone, from_pretrained),
    "adapter_config.json": (adapter, from_pretrained),
}


@pytest.mark.parametrize("how", [how for how, (_, run) in PLANTED.items() if run])
def test_planted_settings_would_run(small: Path, sentinel: Path, how: str) -> None:
    """Negative control: opened without a look at its settings, the folder runs code, though none is trusted."""
    plant, run = PLANTED[how]
    assert run is not None
    run(small)
    assert not sentinel.exists()
    plant(small)
    with contextlib.suppress(ValueError):
        run(small)
    assert sentinel.exists()


def validated(folder: Path, tmp_path: Path) -> None:
    """A recipe whose tokenizer_dir it is, as litGPT copies config.json from there into what is exported one day."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model_name: pythia-14m\nmodel_config: {{n_layer: 6}}\ntokenizer_dir: {folder}\n")
    said = [finding.problem for finding in validate_file(recipe)[0] if finding.key == "tokenizer_dir"]
    if said:
        raise InheritError(*said)


OPENED: dict[str, Callable[[Path, Path], object]] = {
    "surgery": lambda folder, out: surgery(folder, layers="1", out_dir=out),
    "a random start": lambda folder, out: surgery(folder, layers="1", start="random", out_dir=out),
    "export": lambda folder, out: export_checkpoint(folder, out),
    "evaluate": lambda folder, out: evaluate(str(folder), out_dir=out),
    "evaluate by name": lambda _, out: evaluate("attacker/model", out_dir=out),
    "load_model": lambda folder, _: harness.load_model(folder, harness.ModelOptions()),
    "reload": lambda folder, _: reload(folder),
    "straight from Hugging Face": lambda folder, out: (
        (folder / WEIGHTS).unlink(),
        surgery(folder, layers="1", out_dir=out),
    ),
    "recipes validate": lambda folder, out: validated(folder, out.parent),
}


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize("how", PLANTED)
def test_planted_settings(
    llama: Path, small: Path, sentinel: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch, opened: str, how: str
) -> None:
    """A folder that is a litGPT checkpoint and a Hugging Face model, as `litgpt download` leaves it."""
    folder = sentinel.parent / "evil"
    shutil.copytree(llama, folder)
    shutil.copy(small / "model.safetensors", folder)
    if opened == "evaluate by name":
        (folder / WEIGHTS).unlink()
        monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    PLANTED[how][0](folder)
    out = sentinel.parent / "out"
    with fault(llama), pytest.raises(InheritError, match=f"{folder}.* {'an' if '.json' in how else 'has'} .*"):
        OPENED[opened](folder, out)
    assert not sentinel.exists(), "it ran"
    assert not out.exists()
