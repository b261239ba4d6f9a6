"""`inheritune grow-demo`: Algorithm 2 for real in a quarter of an hour, on a small GPT-2 and Shakespeare's plays."""

import json
from collections.abc import Iterable
from pathlib import Path

from inheritune_lit.base.commands import inheritune
from inheritune_lit.base.folders import locked, staging
from inheritune_lit.demo.inputs import HELD_OUT, TEXT_FILE, check_recipes, fetch, write_text

RECIPE, DATA_RECIPE = Path("recipes/growth/demo.yaml"), Path("recipes/data/growth_demo.yaml")
VOCABULARY = 1024
END = "<|endoftext|>"


def grow_demo(out_dir: Path = Path("demo/growth"), *, seed: int = 42, steps: int | None = None) -> None:
    """Grow a small GPT-2 from half of its reference's blocks, with random starts beside it, all trained here.

    The text is Shakespeare's, with Hamlet held out, the tokenizer a small BPE made from it. Given again, the command
    resumes where it stopped. Run it where the recipes are, in the repository's root.

    Args:
        out_dir: The folder for all it writes: text, tokenizer and tokens, which all seeds share, and seed42 and so on.
        seed: Of the initialisation and of the data's order.
        steps: T, optimizer steps of a stage, instead of the recipe's 600.
    """
    out_dir = Path(out_dir)
    check_recipes(RECIPE, DATA_RECIPE)
    with locked(out_dir):
        make_inputs(out_dir)
    inheritune(*grow_command(out_dir, seed, steps))


def grow_command(out_dir: Path, seed: int, steps: int | None) -> list[str]:
    """The `inheritune grow` of one seed, once the inputs are there."""
    folders = ["--out_dir", out_dir / f"seed{seed}", "--data_path", out_dir / "tokens"]
    options = [*folders, "--tokenizer_dir", out_dir / "tokenizer", "--seed", seed]
    options += [] if steps is None else ["--steps", steps]
    return ["grow", "--config", str(RECIPE), *map(str, options)]  # what comes after the recipe wins


def make_inputs(out_dir: Path) -> None:
    """Text, tokenizer and token shards, each unless it is there."""
    text, tokenizer = out_dir / "text", out_dir / "tokenizer"
    fetch(out_dir / "downloads", [TEXT_FILE])
    write_text(out_dir / "downloads", text)
    make_tokenizer(text, tokenizer)
    folders = [text, "--out_dir", out_dir / "tokens", "--tokenizer_dir", tokenizer]
    inheritune("prepare", "--config", DATA_RECIPE, *folders)


def make_tokenizer(text: Path, tokenizer: Path) -> None:
    """A tokenizer made from all of the text but what is held out, unless it is there."""
    if not tokenizer.is_dir():
        plays = [path for path in sorted(text.iterdir()) if path.name != HELD_OUT]
        with staging(tokenizer) as folder:
            train_tokenizer((path.read_text(encoding="utf-8") for path in plays), folder)
        print(f"  a tokenizer of {VOCABULARY:,} tokens in {tokenizer}")


def train_tokenizer(texts: Iterable[str], folder: Path, vocabulary: int = VOCABULARY) -> None:
    """A byte-level BPE like GPT-2's, but of few tokens, as the files that litGPT opens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
