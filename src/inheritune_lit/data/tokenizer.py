"""litGPT's Tokenizer, deciding about BOS by the tokenizer's own files and not by its folder's name."""

import json
from pathlib import Path
from typing import Any

import litgpt.tokenizer


class Tokenizer(litgpt.tokenizer.Tokenizer):
    """What litGPT opens, with the same ids; without what in its files would cut, pad or crash.

    litGPT looks at the folder's name for Llama 3's BOS, so that the same files would encode otherwise elsewhere; wants
    a `tokenizer_class`; keeps a list of EOS ids, which generation_config.json may have, for an id; cuts and pads as
    tokenizer.json says.

    Args:
        checkpoint_dir: A folder with tokenizer.json or tokenizer.model.
    """

    bos_id: Any
    eos_id: Any
    bos_rule: str
    """What in the folder's files says whether texts begin with BOS, `use_bos`"""

    def __init__(self, checkpoint_dir: Path | str) -> None:
        try:
            super().__init__(checkpoint_dir)
        except KeyError as error:  # the last that litGPT reads
            if error.args != ("tokenizer_class",):
                raise
            self.apply_decoding_fix = False
        self.bos_id, self.eos_id = _first(self.bos_id), _first(self.eos_id)
        if self.backend == "huggingface":
            self.processor.no_truncation()
            self.processor.no_padding()
        self.use_bos, self.bos_rule = self._bos_rule(Path(checkpoint_dir) / "tokenizer_config.json")

    def _bos_rule(self, path: Path) -> tuple[bool, str]:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if config.get("add_bos_token") is not None:
            return bool(config["add_bos_token"]), "add_bos_token"
        if self.backend == "huggingface" and self.bos_id is not None:
            plain, added = (
                self.processor.encode("a", add_special_tokens=with_added).ids for with_added in (False, True)
            )
            if added[:1] == [self.bos_id] != plain[:1]:
                return True, "post_processor"
        # whose code adds it where its files say nothing
        return config.get("tokenizer_class") == "LlamaTokenizer", "tokenizer_class"


def _first(token: Any) -> Any:
    return (token or [None])[0] if isinstance(token, list) else token


def install_in_litgpt() -> None:
    """Has `litgpt pretrain` open its tokenizer so."""
    import litgpt.pretrain

    litgpt.pretrain.Tokenizer = Tokenizer
