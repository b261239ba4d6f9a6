"""Where a figure of arXiv 2404.08634 can't hold, for the recipes that reproduce it. No torch, no litGPT."""

from typing import Any

from inheritune_lit.plan.machines import GPUS
from inheritune_lit.recipes.table import MAIN_EPOCHS, Run, run_named

PAPER_SIZES = {"openllama3b_n13": "1.5B", "llama2_7b_n7": "1.6B"}


def remarks(name: str, figures: dict[str, Any]) -> list[str]:
    """Sentences about the paper's sizes, steps and hours, if the recipe is one of ours and still has its numbers."""
    run = run_named(name)
    training, model = figures["training"], figures["model"]
    if run is None or (training["tokens"], model["blocks"]) != (run.max_tokens, run.n_layer):
        return []
    found = []
    if size := PAPER_SIZES.get(run.target):
        found.append(
            f"The paper calls this model {size}; it has {model['parameters'] / 1e9:.3f}B parameters, "
            f"{model['parameters_without_embeddings'] / 1e9:.3f}B without embedding and head."
        )
    if run.epochs == MAIN_EPOCHS[run.subset_key]:
        found += [_steps(run, training), *_hours(run, figures)]
    return found


def _steps(run: Run, training: dict[str, Any]) -> str:
    stated = run.subset.paper_steps
    return (
        f"The paper states {stated // 1000}K steps of {training['tokens_per_step'] // 1000}K tokens: that is "
        f"{stated * training['tokens_per_step'] / 1e9:.3g}B tokens, not {run.max_tokens / 1e9:g}B, which are "
        f"{training['steps']:,} steps. The recipe keeps the tokens."
    )


def _hours(run: Run, figures: dict[str, Any]) -> list[str]:
    """The paper's time beside what its GPU would take at its peak, where nothing could be faster."""
    if run.target != "openllama3b_n13":
        return []
    key, claim = {
        "1b": ("a6000", '"less than half a day", 54 minutes an epoch,'),
        "50b": ("a100-80", "about 18 hours"),
    }[run.subset_key]
    gpu, flops = GPUS[key], figures["flops"]["six_n_d"]
    hours = flops / (gpu.peak_tflops * 1e12) / 3600
    each = f" ({hours / run.epochs:.1f} h an epoch)" if run.epochs > 1 else ""
    return [
        f"The paper's {claim} on one {gpu.title} can't hold for this many tokens: {flops:.2g} FLOPs (6·N·D) take "
        f"{hours:,.0f} h{each} even at all of its {gpu.peak_tflops:g} TFLOP/s of dense bfloat16. The authors' "
        "published script takes 8 × 2,048 tokens a step, an eighth of the batch stated."
    ]
