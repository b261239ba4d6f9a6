"""`inheritune grow`: Algorithm 2 of the paper. Blocks are added until the shorter model is as good as its reference."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.folders import locked
from inheritune_lit.grow.stages import Comparison, Mode


def grow(
    recipe: Path,
    *,
    out_dir: Path,
    reference_dir: Path | None = None,
    start_layers: int | None = None,
    step: int = 2,
    max_layers: int | None = None,
    tolerance: float = 0.0,
    mode: Mode = "restart",
    compare: list[Comparison] | None = None,
    steps: int | None = None,
    data_path: Path | None = None,
    tokenizer_dir: Path | None = None,
    seed: int | None = None,
    keep: Literal["all", "final"] = "all",
    compile: bool = True,
    dry_run: bool = False,
) -> None:
    """Train a reference, inherit its first n blocks, train them, and let n grow until the validation loss is at par.

    Every stage is a `litgpt pretrain` of RECIPE with another model, in OUT_DIR/reference, OUT_DIR/n18 and so on.
    OUT_DIR/growth.json says what is done and why n grew. The same command resumes where it stopped. Losses are
    compared on all windows of the held-out data.

    Args:
        recipe: The reference's `litgpt pretrain` recipe; all stages share its data, budget T, batch and optimizer.
        out_dir: The folder for all stages.
        reference_dir: A trained reference: a run, or a checkpoint folder. By default it is trained by RECIPE.
        start_layers: The first n. By default half of the reference's blocks.
        step: How many blocks n grows by.
        max_layers: The last n. By default one step short of the reference's blocks.
        tolerance: Nats that the validation loss may be above the reference's and still be at par.
        mode: restart inherits each n anew from the reference (the paper's first version); continue puts the reference's
            next blocks on the model trained so far, and trains on (its second version).
        compare: What to train besides, at the n where growth ended: random, a random start of the same shape, and
            random_2t, the same for twice as many steps, over which its learning rate's schedule stretches.
        steps: T, optimizer steps of a stage, instead of the recipe's; its warm-up keeps its share of them.
        data_path: The token shards, instead of the recipe's.
        tokenizer_dir: The tokenizer's folder, instead of the recipe's.
        seed: Of the initialisation and of the data's order, instead of the recipe's.
        keep: final deletes what no later stage needs: optimizer states, starts, targets that were not at par.
        compile: Whether litGPT compiles the model. On a CPU and for few steps it takes longer than it saves.
        dry_run: Print the stages, their sizes and the disk they take, and train nothing.
    """
    from inheritune_lit.base.yaml_document import read_document
    from inheritune_lit.grow.inputs import check_recipe, check_reference, missing_data
    from inheritune_lit.grow.stages import make_settings, with_changes
    from inheritune_lit.recipes.check.findings import report as report_findings
    from inheritune_lit.recipes.check.keys import check_keys
    from inheritune_lit.recipes.check.validate import check_document, check_machine

    if steps is not None and steps < 1:
        raise InheritError(f"--steps {steps}: expected 1 or more.")
    document = read_document(Path(recipe))
    check_recipe(Path(recipe), document, check_keys)  # the changes compute with what stands there
    base = with_changes(document.content, steps=steps, data_path=data_path, tokenizer_dir=tokenizer_dir, seed=seed)
    check_recipe(Path(recipe), replace(document, content=base), check_document)
    options: dict[str, Any] = {"start_layers": start_layers, "step": step, "max_layers": max_layers}
    options |= {"tolerance": tolerance, "mode": mode, "compare": compare, "reference_dir": reference_dir}
    settings = make_settings(base, Path(out_dir), **options)
    check_reference(settings)
    missing = missing_data(settings)
    if not missing and (slow := check_machine(replace(document, content=base), [])):
        print(report_findings(Path(recipe), slow, document))
    if dry_run:
        from inheritune_lit.grow.plan import plan

        print(plan(settings, keep))
        if missing:
            print(f"\n{missing}")
        return
    if missing:
        raise InheritError(missing)
    from inheritune_lit.grow.results import report
    from inheritune_lit.grow.run import Growth

    with locked(settings.out_dir):
        growth = Growth(settings, keep, {} if compile else {"TORCHDYNAMO_DISABLE": "1"})
        growth.run()
        print(report(settings, growth.ledger.content))
