"""`inheritune verify`: is a checkpoint folder what its receipt says, and does it come from the source it names?"""

from pathlib import Path

from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.folder import RECEIPT
from inheritune_lit.checkpoint.opening import open_weights
from inheritune_lit.checkpoint.receipt import check_files, read_receipt
from inheritune_lit.surgery.compare import verify_source


def verify(folder: Path, *, source: Path | None = None) -> None:
    """Check a checkpoint folder against its receipt and, with --source, against the source it was made from.

    A folder that `inheritune export` wrote is opened by transformers in a new process besides: every tensor is there,
    none is left over, and the tokenizer is litGPT's.

    Args:
        folder: A folder that `inheritune surgery` or `inheritune export` wrote.
        source: The source's folder, litGPT's or Hugging Face's, in whichever form it was cut. Every tensor is compared
            with the source's, and the target's logits with those of the source run through the same blocks only:
            exactly equal, on the CPU, in the target's dtype. Of the starts that are more than blocks of a source
            (surgery's --start), the tensors that come from this folder are compared; for a grown target, this may be
            either parent. For an exported folder, the checkpoint that it was made from: logits and token ids are
            compared. For the model of a distilled run, its teacher, by fingerprint.
    """
    folder = Path(folder)
    receipt = read_receipt(folder)
    check_files(folder, receipt["files"])
    print(f"{folder}: {len(receipt['files'])} files are what {RECEIPT} says")
    if receipt.get("kind") == "export":
        from inheritune_lit.export.parity import verify_export

        verify_export(folder, receipt, None if source is None else Path(source))
        return
    if source is not None and receipt.get("teacher"):
        expected, found = receipt["teacher"]["fingerprint"], open_weights(Path(source))[1].fingerprint()
        if found != expected:
            raise InheritError(
                f"{source} did not teach {folder}: its fingerprint is {found}, the teacher's {expected}."
            )
        print(f"{folder}: {source} is the teacher that it was distilled from")
    elif source is not None:
        verify_source(folder, receipt, Path(source))
