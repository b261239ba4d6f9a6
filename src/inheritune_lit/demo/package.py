"""`python -m inheritune_lit.demo.package NAME FOLDER`: what a demo starts from, as `inheritune reproduce` wants it."""

import sys
from pathlib import Path

from inheritune_lit.base.errors import InheritError
from inheritune_lit.demo.grow_demo import make_tokenizer
from inheritune_lit.demo.inputs import HELD_OUT, MODEL_NAME, TEXT_FILE, fetch, unpack, write_text
from inheritune_lit.evaluate.cloze import write_cloze

QUESTIONS = 40


def make(name: str, folder: Path) -> None:
    """Fills FOLDER/reference, with the growth's demo by a tokenizer alone, FOLDER/text and FOLDER/questions."""
    downloads, text = folder / "downloads", folder / "text"
    fetch(downloads, *([[TEXT_FILE]] if name == "growth-demo" else []))
    write_text(downloads, text)
    if name == "growth-demo":
        make_tokenizer(text, folder / "reference")
    else:
        unpack(downloads, folder / "reference" / MODEL_NAME)
        write_cloze(text / HELD_OUT, folder / "questions", QUESTIONS)


if __name__ == "__main__":
    try:
        make(sys.argv[1], Path(sys.argv[2]))
    except InheritError as error:
        sys.exit(f"error: {error}")
