"""What is evaluated: a run, a litGPT checkpoint folder, a Hugging Face folder, or a model on the Hugging Face hub."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import sha256_of
from inheritune_lit.checkpoint.folder import (
    HF_CONFIG,
    MODEL_CONFIG,
    RECEIPT,
    TOKENIZER_FILES,
    WEIGHTS,
    find_checkpoint,
    refuse_code,
)
from inheritune_lit.checkpoint.hugging_face import weight_files
from inheritune_lit.checkpoint.receipt import check_files, read_receipt
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.recipes.recipe import Recipe
from inheritune_lit.runs.folder import results_dir
from inheritune_lit.runs.lineage import trained_with


@dataclass(frozen=True)
class EvaluatedModel:
    """A model to evaluate."""

    name: str
    path: Path
    """The folder that holds its weights"""
    out_dir: Path
    """Where its results go by default"""
    trained_length: int | None = None
    """Tokens of a window its run was trained on, if it is a run"""

    @property
    def is_litgpt(self) -> bool:
        return (self.path / WEIGHTS).is_file()

    @cached_property
    def fingerprint(self) -> str:
        """Which weights: weights.Weights', also for an export of them; else a SHA-256 over all files of weights.

        Raises:
            InheritError: there are no weights, or an export is not what its receipt says.
        """
        if self.is_litgpt:
            return Weights(self.path / WEIGHTS).fingerprint()
        if (self.path / RECEIPT).is_file():
            receipt = read_receipt(self.path)
            check_files(self.path, receipt["files"])
            return str(receipt["source"]["fingerprint"])
        return sha256_of(weight_files(self.path), self.path)

    @cached_property
    def settings_sha256(self) -> str:
        """SHA-256 over the configuration and tokenizer files: they, too, decide about every score."""
        names = (MODEL_CONFIG if self.is_litgpt else HF_CONFIG, *TOKENIZER_FILES)
        return sha256_of([self.path / name for name in names if (self.path / name).is_file()], self.path)

    def as_hugging_face(self, work_dir: Path) -> Path:
        """The model as a Hugging Face folder: itself, or an export in `work_dir`, which replaces an earlier one."""
        if not self.is_litgpt:
            return self.path
        from inheritune_lit.export.command import export_checkpoint

        folder = work_dir / "exported"
        export_checkpoint(self.path, folder, overwrite=True)
        return folder


def find(checkpoint: str) -> EvaluatedModel:
    """Finds out what a command's CHECKPOINT is.

    Raises:
        InheritError: it is no folder with a model, and no model that the hub or its cache has; or it could make
            transformers run code.
    """
    subject = _find(checkpoint)
    refuse_code(subject.path)
    return subject


def _find(checkpoint: str) -> EvaluatedModel:
    path = Path(checkpoint)
    if not path.is_dir():
        return EvaluatedModel(checkpoint, _download(checkpoint), Path("evaluation") / checkpoint.replace("/", "--"))
    name = path.resolve().name
    if (path / HF_CONFIG).is_file() and not (path / WEIGHTS).is_file():
        return EvaluatedModel(name, path, path / "evaluation")
    folder = find_checkpoint(path)
    return EvaluatedModel(name, folder, results_dir(path, "evaluation"), _trained_length(folder))


def _trained_length(checkpoint: Path) -> int | None:
    recipe = trained_with(checkpoint)
    return Recipe.of(recipe).sequence if recipe else None


def _download(name: str) -> Path:
    """A model of the Hugging Face hub in its cache: no code, and PyTorch's pickles only if there is nothing better."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            snapshot_download(name, allow_patterns=["*.bin"])  # transformers opens them with weights_only
    except Exception as error:  # of many classes: no network, no such name, not permitted
        raise InheritError(
            f"{name} is no folder here, and the Hugging Face hub gave no model of that name: {error}\n"
            "Check the path; or, on a machine with a network, fetch it with "
            f"`hf download {name} --local-dir FOLDER` and evaluate FOLDER."
        ) from error
    return folder
