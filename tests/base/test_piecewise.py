import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from litgpt.config import Config
from litgpt.model import GPT

from inheritune_lit import gpt2
from inheritune_lit.base.piecewise import PIECES, litgpt_file, piece
from inheritune_lit.base.yaml_document import read_document
from inheritune_lit.recipes.check.keys import check_keys

RECIPES = Path(__file__).parents[2] / "recipes"


def test_what_trains_nothing_imports_litgpt_piece_by_piece_and_leaves_it_whole(llama: Path, tmp_path: Path) -> None:
    """None of what takes seconds to import is there after these commands; litGPT, imported after them, is as ever."""
    source = shutil.copytree(llama, tmp_path / "source")
    stated = json.loads((source / "config.json").read_text())
    del stated["layer_norm_eps"]  # of no Llama: transformers would be asked
    (source / "config.json").write_text(json.dumps(stated))
    code = f"""
import sys, torch
from inheritune_lit.__main__ import main
surgery = ["surgery", {str(source)!r}, "--layers", "2", "--out_dir", {str(tmp_path / "out")!r}]
main([*surgery, "--dry_run"])
main(surgery)
assert "torch._dynamo" not in sys.modules  # torch.compile's part takes more than a second too
for recipe in ("openllama3b_n13.yaml", "gpt2/large_n18.yaml"):
    main(["recipes", "validate", {str(RECIPES)!r} + "/" + recipe])
    main(["plan", {str(RECIPES)!r} + "/" + recipe])
main(["verify", {str(tmp_path / "out")!r}, "--source", {str(source)!r}])
heavy = {{name.partition(".")[0] for name in sys.modules}} & {{"lightning", "torchmetrics", "transformers", "datasets"}}
assert not heavy, heavy
import litgpt.model
light = litgpt.model.GPT
from litgpt import GPT, LLM, Config, Tokenizer
import litgpt.pretrain, litgpt.utils, litgpt.scripts.convert_hf_checkpoint as converter
assert GPT is light is litgpt.pretrain.GPT and Config is litgpt.config.Config
assert litgpt.utils.incremental_save is converter.incremental_save
assert litgpt.api.LLM is LLM and "lightning" in sys.modules
sizes = dict(n_layer=1, n_embd=8, n_head=4, n_query_groups=2, vocab_size=8, block_size=8)
qkv = torch.arange(16.0).reshape(16, 1)
assert torch.equal(litgpt.model.qkv_reassemble(qkv, Config(**sizes)), converter.qkv_reassemble(qkv, Config(**sizes)))
try:
    litgpt.nothing
except AttributeError:
    print("whole")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("whole\n"), done.stderr


@pytest.mark.parametrize("name", [name for names in list(PIECES.values())[1:] for name in names])
def test_piece_is_what_the_whole_file_defines(name: str) -> None:
    import litgpt.scripts.convert_hf_checkpoint as converter
    import litgpt.utils as utils

    whole = getattr(utils, name, None) or getattr(converter, name)
    ours = piece(litgpt_file(whole.__module__.removeprefix("litgpt.").replace(".", "/") + ".py"), name)
    code = [getattr(f, "__init__", f) if isinstance(f, type) else f for f in (whole, ours)]
    assert ours is not whole
    assert code[0].__code__.co_code == code[1].__code__.co_code


def test_model_without_data_has_the_models_names_and_shapes() -> None:
    config = Config.from_name("pythia-14m")
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in GPT(config).state_dict().items()}
    empty = gpt2.build_empty(config).state_dict()
    assert {name: tensor.shape for name, tensor in empty.items()} == expected
    assert {tensor.device.type for tensor in empty.values()} == {"meta"}


def _imported(path: Path) -> object:
    """What litGPT's parser makes of a recipe when it has imported everything that the recipe names."""
    from jsonargparse import ArgumentParser
    from litgpt.pretrain import setup

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_function_arguments(setup, fail_untyped=False)
    return parser.parse_args(["--config", str(path)])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("data.init_args.epochs", "many"), ("data.init_args.num_workers", 1.5), ("data.init_args.unknown", 1)),
        *(("data.init_args.batch_size", 1), ("train.max_tokens", 8e9), ("train.unknown", 1), ("eval.interval", "x")),
        *(("model_config.unknown", 1), ("model_config.norm_class_name", "x"), ("model_config.n_layer", 1.5)),
        *(("model_config", "model_config.yaml"), ("precision", "bf16"), ("logger_name", "x"), ("seed", 0.5)),
        *(("unknown", 1), ("log.project", 7), ("optimizer", 7)),
    ],
)
def test_what_litgpt_refuses_is_refused(tmp_path: Path, key: str, value: object) -> None:
    recipe = yaml.safe_load((RECIPES / "openllama3b_n13.yaml").read_text()) | {"log": {}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.dump(recipe))
    assert _imported(path), "negative control"
    assert check_keys(read_document(path)) == []
    *blocks, last = key.split(".")
    block = recipe
    for name in blocks:
        block = block[name]
    block[last] = value
    path.write_text(yaml.dump(recipe))
    with pytest.raises(Exception, match=key.split(".")[0]):
        _imported(path)
    (found,) = check_keys(read_document(path))
    assert (found.severity, found.key) == ("error", key)
