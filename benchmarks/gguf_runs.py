"""What llama.cpp makes of an export's GGUF file, beside litGPT: token ids, greedy continuations, logits.

    pip install llama-cpp-python==0.3.36          # builds llama.cpp
    python benchmarks/gguf_runs.py CHECKPOINT [--kinds F16 BF16 Q8_0]
    PYTHONPATH=tests python benchmarks/gguf_runs.py CHECKPOINT --families

The first exports a litGPT checkpoint with each type and compares them, as llama.cpp runs by default: with float16 in
its products and its cache. The second does so with a small model of every family that litGPT has, of random weights and
with the checkpoint's tokenizer, all in float32, so that what differs is the conversion. llama.cpp ends a process that
it can't go on with, so each model has one of its own.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stdout
from io import StringIO
from multiprocessing import get_context
from pathlib import Path

PROMPTS = (
    "The capital of France is",
    "Once upon a time there was a",
    "def fibonacci(n):\n    ",
    "Water boils at 100 degrees",
    "To be, or not to be,  that is",
    "In 1969, Neil Armstrong",
    "“Why,” she asked, “don't",
    "1, 2, 3, 4,",
    "naïve café – 东京 🙂",
    "The first law of thermodynamics",
)
NEW = 20


def compare(checkpoint: Path, gguf: Path) -> list[str]:
    """One GGUF file beside the checkpoint that it was made from."""
    import torch
    from llama_cpp import Llama

    from inheritune_lit.checkpoint.model import load_model
    from inheritune_lit.data.tokenizer import Tokenizer
    from inheritune_lit.export.reload import SAMPLES, TEXT

    model, tokenizer = load_model(checkpoint), Tokenizer(checkpoint)
    cache = {"type_k": 0, "type_v": 0} if gguf.stem.endswith("F32") else {}  # 0 is float32
    llama = Llama(str(gguf), n_ctx=256, logits_all=True, verbose=False, n_threads=1, n_threads_batch=1, **cache)
    texts = [*SAMPLES, *PROMPTS]
    same_ids = sum(llama.tokenize(text.encode(), True, False) == tokenizer.encode(text).tolist() for text in texts)
    torch.set_num_threads(1)  # and llama.cpp's: what else runs here would slow several down by far more than one
    same, tokens, gap = 0, 0, 0.0
    for prompt in PROMPTS:
        given = tokenizer.encode(prompt).tolist()
        ids, logits = list(given), []
        with torch.inference_mode():
            for _ in range(NEW):
                logits.append(model(torch.tensor([ids]))[0, -1])
                ids.append(int(logits[-1].argmax()))
        llama.reset()
        found = []
        for token in llama.generate(given, temp=0, repeat_penalty=1.0):
            found.append(token)
            if len(found) == NEW:
                break
        agree = next((i for i, (a, b) in enumerate(zip(found, ids[len(given) :], strict=True)) if a != b), NEW)
        same, tokens = same + (agree == NEW), tokens + agree
        if agree < NEW:
            largest = logits[agree].max()
            gap = max(gap, float((largest - logits[agree][found[agree]]) / largest.abs()))
    ids = tokenizer.encode(TEXT).tolist()[: model.config.block_size]
    llama.reset()
    llama.eval(ids)
    with torch.inference_mode():
        expected = model(torch.tensor([ids]))[0]
    scores = torch.tensor(llama.scores[: len(ids)])
    difference = float((scores - expected[:, : scores.shape[1]]).abs().max() / expected.abs().max())
    llama.close()
    return [
        f"{same_ids} of {len(texts)}",
        f"{same} of {len(PROMPTS)}",
        f"{tokens} of {NEW * len(PROMPTS)}",
        f"{gap:.1e}" if gap else "–",
        f"{difference:.1e}",
    ]


def row(checkpoint: Path, gguf: Path) -> str:
    """What came of one comparison, or the error that it ended with."""
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        try:
            found = pool.submit(compare, checkpoint, gguf).result()
        except (BrokenProcessPool, ValueError, RuntimeError) as error:
            return f"llama.cpp: {error}"
    return " | ".join([f"{gguf.stat().st_size / 2**20:,.0f} MiB", *found])


def families(tokenizer: Path, folder: Path, names: list[str]) -> None:
    """A small model of each family, 3 blocks of it cut out, exported and run."""
    import torch
    import yaml
    from checkpoint.test_families import FAMILIES, SMALL
    from helpers.models import make_checkpoint, write_sentencepiece
    from helpers.models_to_export import WORDS

    from inheritune_lit.base.errors import InheritError
    from inheritune_lit.checkpoint.folder import load_config
    from inheritune_lit.export import parity, reload
    from inheritune_lit.export.command import export_checkpoint
    from inheritune_lit.export.gguf import write_gguf
    from inheritune_lit.surgery.command import surgery

    parity.reload_in_new_process = reload.reload
    rows = yaml.safe_load((tokenizer / "model_config.yaml").read_text())["padded_vocab_size"]
    wide = {"n_embd": 128, "head_size": 32, "vocab_size": rows, "padded_vocab_size": rows}
    for name in names or FAMILIES:
        small, hf_config, tied = FAMILIES[name]
        reference, cut, exported = (folder / what / name for what in ("reference", "cut", "exported"))
        reference.parent.mkdir(exist_ok=True)
        (folder / "tokenizer").mkdir(exist_ok=True)
        shape = SMALL | small | wide
        if name.startswith("Gemma"):  # the converter wants SentencePiece's, and llama.cpp the published ones' attention
            stated = json.dumps(hf_config).replace('"query_pre_attn_scalar": 256', '"query_pre_attn_scalar": 32')
            hf_config = json.loads(stated.replace('"sliding_window_pattern": 3', '"sliding_window_pattern": 6'))
            shape |= {"attention_scores_scalar": 32, **WORDS}
            windows = [1, 0, 1, 0, 1, 0] if name.startswith("Gemma-2-") else [1, 1, 1, 1, 1, 0]
            shape |= {key: windows for key in ("sliding_window_indices", "rope_indices") if key in shape}
            given = write_sentencepiece(folder / "tokenizer" / name, add_dummy_prefix=False)
        else:
            given = tokenizer
        if name == "phi-2" or name.startswith("falcon"):  # which are four times as wide inside, whatever is said
            shape["intermediate_size"] = 4 * shape["n_embd"]
        make_checkpoint(reference, (name, shape, hf_config))
        if tied:
            state = torch.load(reference / "lit_model.pth", weights_only=True)
            torch.save(state | {"lm_head.weight": state["transformer.wte.weight"]}, reference / "lit_model.pth")
        for file in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
            (reference / file).unlink(missing_ok=True)
            if (given / file).is_file():
                shutil.copyfile(given / file, reference / file)
        if hf_config["model_type"] == "phi3":  # as Phi-4's says; others need a tokenizer.model
            settings = json.loads((reference / "tokenizer_config.json").read_text())
            (reference / "tokenizer_config.json").write_text(
                json.dumps(settings | {"tokenizer_class": "GPT2Tokenizer"})
            )
        layers = "0-2" if name.startswith("Gemma") else "0,2,3"
        try:
            with redirect_stdout(StringIO()):
                surgery(reference, layers=layers, out_dir=cut)
            receipt = export_checkpoint(cut, exported)
            found = (receipt["check"]["depth"], receipt["parameters"], "float32", True, (), (), torch.empty(0))
            write_gguf(exported, "model-F32.gguf", load_config(cut), reload.Reloaded(*found))
            print(f"| {name} | F32 | {row(cut, exported / 'model-F32.gguf')} |", flush=True)
        except InheritError as error:
            print(f"| {name} | F32 | {error} |", flush=True)
        for done in (reference, cut, exported):
            shutil.rmtree(done, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--kinds", nargs="+", default=["F16", "BF16", "Q8_0"])
    parser.add_argument("--families", nargs="*", help="all, or those named")
    args = parser.parse_args()
    columns = [
        "model",
        "type",
        "file",
        "texts with the same ids",
        "same continuations",
        "tokens until then",
        "gap",
        "logits",
    ]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    with tempfile.TemporaryDirectory() as scratch:
        if args.families is not None:
            families(args.checkpoint, Path(scratch), args.families)
        else:
            for kind in args.kinds:
                out_dir = Path(scratch) / kind
                command = ["inheritune_lit", "export", str(args.checkpoint), "--out_dir", str(out_dir), "--gguf", kind]
                subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL)
                found = row(args.checkpoint, out_dir / f"{kind}-{kind}.gguf")
                print(f"| {args.checkpoint.name} | {kind} | {found} |", flush=True)


if __name__ == "__main__":
    main()
