import json
import pickle
import shutil
from pathlib import Path

import pytest
from conftest import TEXTS, write_bpe, write_sentencepiece
from litgpt import Tokenizer

from inheritune_lit.commit import InheritError, sha256_file
from inheritune_lit.data.encoding import identity, open_tokenizer, vocabulary_size

# Texts at which litGPT's rules for the ends bite: BOS and EOS in the text itself, nothing at all, control characters.
DOCUMENTS = [
    *TEXTS,
    "ends itself</s>",
    "</s>",
    "<s>begins itself",
    "<s>",
    "<s> both </s>",
    "",
    " ",
    "\x00\n\r\n",
    "é" * 99,
]


@pytest.mark.parametrize("bos", [None, True, False])
@pytest.mark.parametrize("add_bos", [True, False])
@pytest.mark.parametrize("write", [write_bpe, write_sentencepiece])
def test_ids_are_litgpts(tmp_path: Path, write, add_bos: bool, bos: bool | None) -> None:  # type: ignore[no-untyped-def]
    folder = write(tmp_path / "tokenizer", add_bos=add_bos)
    litgpt = Tokenizer(folder)
    encoder, _ = open_tokenizer(folder, bos)
    expected = [litgpt.encode(text, bos=bos, eos=True).tolist() for text in DOCUMENTS]
    assert encoder.encode_batch(DOCUMENTS) == expected
    assert pickle.loads(pickle.dumps(encoder)).encode_batch(DOCUMENTS) == expected  # as a worker gets it
    assert encoder.bos == (add_bos if bos is None else bos)


def test_truncation_and_padding_are_off(bpe: Path, tmp_path: Path) -> None:
    """A tokenizer.json may carry both; litGPT would cut every document at that length."""
    from tokenizers import Tokenizer as HFTokenizer

    folder = shutil.copytree(bpe, tmp_path / "tokenizer")
    tokenizer = HFTokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert open_tokenizer(folder)[0].encode_batch([*TEXTS, "a"]) == open_tokenizer(bpe)[0].encode_batch([*TEXTS, "a"])


def test_what_the_manifest_says(bpe: Path, sentencepiece: Path) -> None:
    encoder, entry = open_tokenizer(bpe)
    assert entry == {
        "file": "tokenizer.json",
        "sha256": sha256_file(bpe / "tokenizer.json"),
        "identity": identity(Tokenizer(bpe)),
        "vocab_size": encoder.vocab_size,
        "bos": False,
        "bos_id": 0,
        "eos_id": 1,
    }
    _, entry = open_tokenizer(sentencepiece)
    assert (entry["file"], entry["bos"], entry["bos_id"], entry["eos_id"]) == ("tokenizer.model", True, 1, 2)


def test_json_goes_before_model_as_in_litgpt(bpe: Path, sentencepiece: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bpe, tmp_path / "both")
    shutil.copy(sentencepiece / "tokenizer.model", folder)
    assert open_tokenizer(folder)[1]["file"] == "tokenizer.json"


def test_vocabulary_counts_added_tokens(bpe: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bpe, tmp_path / "tokenizer")
    content = json.loads((folder / "tokenizer.json").read_text())
    size = len(content["model"]["vocab"])
    content["added_tokens"].append(content["added_tokens"][0] | {"id": size + 6, "content": "<far>"})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert Tokenizer(folder).vocab_size == size
    far = Tokenizer(folder).token_to_id("<far>")
    assert vocabulary_size(Tokenizer(folder)) == open_tokenizer(folder)[0].vocab_size == far + 1 > size


@pytest.mark.parametrize(("size", "dtype"), [(2**16, "uint16"), (2**16 + 1, "uint32")])
def test_smallest_type_that_holds_every_id(tmp_path: Path, size: int, dtype: str) -> None:
    encoder, _ = open_tokenizer(write_words(tmp_path / "tokenizer", size))
    assert (encoder.vocab_size, encoder.dtype) == (size, dtype)


def write_words(folder: Path, size: int) -> Path:
    """A tokenizer with one id a word: </s> 0, w1 1, w2 2, …"""
    from tokenizers import Tokenizer as HFTokenizer
    from tokenizers import models, pre_tokenizers

    tokenizer = HFTokenizer(models.WordLevel({"</s>": 0} | {f"w{i}": i for i in range(1, size)}, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "Words", "eos_token": "</s>"}')
    return folder


def test_identity_tells_tokenizers_apart(bpe: Path, sentencepiece: Path, tmp_path: Path) -> None:
    folders = [bpe, sentencepiece, write_bpe(tmp_path / "small", vocab_size=261)]
    files = ("tokenizer.json", "tokenizer_config.json")
    for edits in (
        {files[1]: ('"eos_token": "</s>"', '"eos_token": "<s>"')},  # another special token
        {files[0]: ('"add_prefix_space":false', '"add_prefix_space":true')},  # the same tokens, split in another way
        {files[0]: ('"ÿ":', '"no byte of UTF-8":')},  # split in the same way, another token
    ):
        folder = shutil.copytree(bpe, tmp_path / f"variant{len(folders)}")
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")))
        for name, (old, new) in edits.items():
            text = (folder / name).read_text()
            assert old in text
            (folder / name).write_text(text.replace(old, new))
        folders.append(folder)
    assert len({identity(Tokenizer(folder)) for folder in folders}) == len(folders)


def test_identity_does_not_depend_on_folder_or_formatting(bpe: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bpe, tmp_path / "elsewhere")
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(content, indent=1, sort_keys=True))
    assert identity(Tokenizer(folder)) == identity(Tokenizer(bpe))


def test_errors(bpe: Path, tmp_path: Path) -> None:
    with pytest.raises(InheritError, match=r"Can't open the tokenizer in .*nowhere: NotADirectoryError"):
        open_tokenizer(tmp_path / "nowhere")
    folder = shutil.copytree(bpe, tmp_path / "tokenizer")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(InheritError, match=r"has no EOS token \(id None, vocabulary \d+\), which every document ends"):
        open_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "X", "eos_token": "</s>"}')
    assert not open_tokenizer(folder)[0].bos
    with pytest.raises(InheritError, match=r"has no BOS token .* or pass --bos false"):
        open_tokenizer(folder, bos=True)
    (folder / "generation_config.json").write_text('{"eos_token_id": 100000}')
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "X"}')
    with pytest.raises(InheritError, match=r"no EOS token \(id 100000"):
        open_tokenizer(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(InheritError, match=r"Can't open the tokenizer in .*: Exception"):
        open_tokenizer(folder)
