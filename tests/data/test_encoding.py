import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.models import TEXTS, write_bpe, write_sentencepiece
from helpers.texts import write_words
from litgpt.tokenizer import Tokenizer as LitGPTTokenizer

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import sha256_file
from inheritune_lit.data.encoding import Encoder, identity, open_tokenizer, vocabulary_size
from inheritune_lit.data.tokenizer import Tokenizer

# Texts at whose ends rules bite: BOS and EOS in the text itself, nothing at all, control characters.
DOCUMENTS = [
    *TEXTS,
    "ends itself</s>",
    "ends itself twice</s></s>",
    "ends inside</s> and goes on",
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
    """And one EOS behind each; litGPT's own `eos=True` takes a text's own EOS away."""
    folder = write(tmp_path / "tokenizer", add_bos=add_bos)
    litgpt = LitGPTTokenizer(folder)
    encoder, _ = open_tokenizer(folder, bos)
    expected = [without_eos(litgpt.encode(text, bos=bos, eos=True).tolist(), encoder) for text in DOCUMENTS]
    expected = [[*ids, encoder.eos_id] for ids in expected]
    assert encode(encoder, DOCUMENTS) == expected
    assert encode(pickle.loads(pickle.dumps(encoder)), DOCUMENTS) == expected  # as a worker gets it
    assert encoder.bos == (add_bos if bos is None else bos)


def encode(encoder: Encoder, texts: list[str]) -> list[list[int]]:
    ids, lengths, _ = encoder.encode(texts)
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]


def without_eos(ids: list[int], encoder: Encoder) -> list[int]:
    while ids and ids[-1] == encoder.eos_id:
        ids.pop()
    return ids


def add_post_processor(folder: Path, template: str) -> Path:
    """Has tokenizer.json put special tokens around texts, as `add_eos_token: true` and Llama 3 do."""
    from tokenizers import Tokenizer as HFTokenizer
    from tokenizers.processors import TemplateProcessing

    tokenizer = HFTokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=[("<s>", 0), ("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("template", ["<s> $A </s>", "$A </s>", "<s> $A", "$A </s> </s>"])
@pytest.mark.parametrize("bos", [True, False])
def test_a_post_processor_changes_nothing_at_the_end(tmp_path: Path, template: str, bos: bool) -> None:
    plain = write_bpe(tmp_path / "plain")
    added = add_post_processor(write_bpe(tmp_path / "added"), template)
    assert encode(open_tokenizer(added, bos)[0], DOCUMENTS) == encode(open_tokenizer(plain, bos)[0], DOCUMENTS)
    assert all(ids[-1] == 1 != ids[-2:-1] for ids in encode(open_tokenizer(added, bos)[0], DOCUMENTS))


@pytest.mark.parametrize(
    ("config", "template", "bos", "rule"),
    [
        ({"add_bos_token": True}, "$A", True, "add_bos_token"),
        ({"add_bos_token": False}, "<s> $A", False, "add_bos_token"),
        ({}, "<s> $A", True, "post_processor"),
        ({"add_bos_token": None}, "<s> $A </s>", True, "post_processor"),
        ({}, "$A </s>", False, "tokenizer_class"),
        ({"tokenizer_class": "LlamaTokenizer"}, "$A", True, "tokenizer_class"),
    ],
)
def test_bos_is_decided_by_the_files_not_the_folders_name(
    tmp_path: Path, config: dict[str, Any], template: str, bos: bool, rule: str
) -> None:
    found = []
    for name in ("Llama-3.2-1B", "Meta-Llama-3-8B", "SmolLM2-135M-Instruct", "llama32_n8"):
        folder = add_post_processor(write_bpe(tmp_path / name), template)
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | config))
        encoder, entry = open_tokenizer(folder)
        assert (entry["bos"], entry["bos_rule"]) == (bos, rule)
        assert (encode(encoder, ["a"])[0][0] == 0) == bos
        found.append(entry["identity"])
    assert len(set(found)) == 1
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"add_bos_token": not bos}))
    assert open_tokenizer(folder)[1]["identity"] != found[0]


def test_litgpt_pretrain_opens_the_same(bpe: Path, tmp_path: Path) -> None:
    """Importing the data module, as a recipe does, has litGPT decide by the files too."""
    import litgpt.pretrain

    import inheritune_lit.data.tokens  # noqa: F401

    folder = shutil.copytree(bpe, tmp_path / "Llama-3.2-1B")
    assert LitGPTTokenizer(folder).use_bos
    assert not litgpt.pretrain.Tokenizer(folder).use_bos
    assert identity(litgpt.pretrain.Tokenizer(folder)) == open_tokenizer(bpe)[1]["identity"]


@pytest.mark.parametrize(("eos", "expected"), [([1, 5], 1), ([7], 7), (7, 7)])
def test_a_list_of_eos_ids_and_no_class(bpe: Path, tmp_path: Path, eos: Any, expected: int) -> None:
    """As generation_config.json of many models has it; the first one ends a text."""
    folder = shutil.copytree(bpe, tmp_path / "tokenizer")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": eos}))
    encoder, entry = open_tokenizer(folder)
    assert encoder.eos_id == entry["eos_id"] == encode(encoder, ["a"])[0][-1] == expected
    assert identity(Tokenizer(folder)) == entry["identity"]


def test_truncation_and_padding_are_off(bpe: Path, tmp_path: Path) -> None:
    """A tokenizer.json may carry both; litGPT would cut every document at that length."""
    from tokenizers import Tokenizer as HFTokenizer

    folder = shutil.copytree(bpe, tmp_path / "tokenizer")
    tokenizer = HFTokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert identity(LitGPTTokenizer(folder)) == open_tokenizer(bpe)[1]["identity"]
    assert encode(open_tokenizer(folder)[0], [*TEXTS, "a"]) == encode(open_tokenizer(bpe)[0], [*TEXTS, "a"])


def test_what_the_manifest_says(bpe: Path, sentencepiece: Path) -> None:
    encoder, entry = open_tokenizer(bpe)
    assert entry == {
        "file": "tokenizer.json",
        "sha256": sha256_file(bpe / "tokenizer.json"),
        "identity": identity(Tokenizer(bpe)),
        "vocab_size": encoder.vocab_size,
        "bos": False,
        "bos_rule": "add_bos_token",
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
