"""Whether a checkpoint folder can teach: what is known of it without torch."""

from pathlib import Path

from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.folder import WEIGHTS, is_hugging_face, load_config


def check_teacher(folder: Path, max_seq_length: int, largest_id: int) -> None:
    """Whether the teacher can read the windows of a training.

    Args:
        folder: A checkpoint folder, litGPT's or Hugging Face's.
        max_seq_length: Tokens of a window.
        largest_id: The largest token id that occurs.

    Raises:
        InheritError: it is no whole checkpoint folder, has a shorter context, or no embedding for an id.
    """
    if not (folder / WEIGHTS).is_file() and not is_hugging_face(folder):
        raise InheritError(
            f"The teacher {folder} holds no {WEIGHTS}. Name a checkpoint folder, such as a run's model/, or a Hugging "
            "Face folder."
        )
    config = load_config(folder)
    if config.block_size < max_seq_length:
        raise InheritError(
            f"The teacher attends to {config.block_size:,} tokens ({folder}), the training's windows have "
            f"{max_seq_length:,}. Lower train.max_seq_length to that, or take another teacher."
        )
    if (rows := config.padded_vocab_size or config.vocab_size) <= largest_id:
        raise InheritError(
            f"The teacher has embeddings for {rows:,} tokens ({folder}), the data ids up to {largest_id:,}: its "
            "tokenizer is another one. Take a teacher with the tokenizer of the data."
        )
