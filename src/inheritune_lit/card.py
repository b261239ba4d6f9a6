"""The model card of an export: what receipts, settings and results say, and "unknown" where they are silent."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from inheritune_lit.commit import InheritError, natural
from inheritune_lit.lineage import Lineage

TEMPLATE = "card.md.jinja"


def render_card(
    receipt: Mapping[str, Any],
    lineage: Lineage,
    *,
    name: str,
    context: int,
    architecture: str,
    attention: str | None = None,
    license: str | None = None,
    base_model: str | None = None,
) -> str:
    """Markdown with the front matter that the Hugging Face hub reads.

    Args:
        receipt: The export's, but for its files.
        lineage: Where the checkpoint comes from.
        name: The model's, as its heading.
        context: Tokens the model can look back on.
        architecture: transformers' name for it, as `llama`.
        attention: The implementation of attention that it needs; None is transformers' own choice.
        license: The licence's identifier on the hub; None if it was not stated.
        base_model: The reference's name on the hub; None if it was not stated.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError

    environment = Environment(
        loader=PackageLoader("inheritune_lit", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= FILTERS
    try:
        return environment.get_template(TEMPLATE).render(
            receipt=receipt,
            lineage=lineage,
            start=_start(lineage.start),
            hyperparameters=_hyperparameters(lineage.recipe or {}),
            run=_run(lineage.run or {}, lineage.steps),
            evaluations=[result for result in lineage.evaluations if result.get("kind") == "evaluation"],
            held_out=next((result for result in lineage.evaluations if result.get("kind") == "validation_loss"), None),
            versions={**(lineage.run or {}).get("versions", {}), **receipt["versions"]},
            recipe_yaml=yaml.safe_dump(dict(lineage.recipe or {}), sort_keys=False, allow_unicode=True),
            name=name,
            context=context,
            architecture=architecture,
            attention=attention,
            license=license,
            base_model=base_model,
        )
    except UndefinedError as error:
        raise InheritError(f"A receipt or result that the model card needs is not whole: {error}") from error


def _start(receipt: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if receipt is None:
        return None
    source, origins = receipt.get("source") or {}, receipt.get("origins") or {}
    return {
        "reference": source.get("name"),
        "n_layer": source.get("n_layer"),
        "fingerprint": source.get("fingerprint"),
        **{name: receipt.get(name) for name in ("start", "blocks", "seed", "command")},
        "origins": {name: origins[name] for name in sorted(origins, key=natural)},
    }


def _hyperparameters(recipe: Mapping[str, Any]) -> dict[str, Any]:
    train, optimizer = recipe.get("train") or {}, recipe.get("optimizer")
    settings = (optimizer.get("init_args") or {}) if isinstance(optimizer, Mapping) else {}
    warmup = {"warm-up steps": train.get("lr_warmup_steps"), "warm-up share": train.get("lr_warmup_fraction")}
    return {
        "sequences a step": train.get("global_batch_size"),
        "tokens a sequence": train.get("max_seq_length"),
        "optimizer": optimizer.get("class_path") if isinstance(optimizer, Mapping) else optimizer,
        "learning rate": settings.get("lr"),
        "lowest learning rate": train.get("min_lr"),
        **{name: value for name, value in warmup.items() if value is not None},
        "weight decay": settings.get("weight_decay"),
        "betas": settings.get("betas"),
        "gradient clipping": train.get("max_norm"),
        "precision": recipe.get("precision"),
        "seed": recipe.get("seed"),
    }


def _run(receipt: Mapping[str, Any], steps: int | None) -> dict[str, Any]:
    """What a run's receipt says of machine, time and losses; the last two only of the checkpoint that it ended with."""
    if receipt.get("steps") not in (None, steps):
        receipt = {**receipt, "seconds": None, "losses": None}
    hardware, losses = receipt.get("hardware") or {}, receipt.get("losses") or {}
    gpus, processes = hardware.get("gpus"), hardware.get("world_size")
    machine = f"{processes or len(gpus)} × {gpus[0]}" if gpus else None
    if gpus == [] and hardware.get("cores"):
        machine = f"CPU, {hardware['cores']} cores ({hardware.get('processor')})"
    seconds = receipt.get("seconds")
    return {
        "hardware": machine,
        "hours": None if seconds is None else f"{seconds / 3600:.2f}",
        "losses": {
            "training at the end": losses.get("training"),
            "validation at the end": losses.get("validation"),
            "validation before training": receipt.get("validation_loss_untrained"),
        },
    }


def _blocks(blocks: Sequence[int] | None) -> str:
    if not blocks:
        return "unknown"
    return f"the first {len(blocks)}" if list(blocks) == [*range(len(blocks))] else ", ".join(map(str, blocks))


def _number(value: Any) -> str:
    return "unknown" if value is None else f"{value + 0:,}"  # + 0: a value that is not there says its name, unformatted


FILTERS: dict[str, Callable[[Any], str]] = {
    "known": lambda value: "unknown" if value is None else str(value),
    "code": lambda value: "unknown" if value is None else f"`{value}`",
    "number": _number,
    "loss": lambda value: "unknown" if value is None else f"{value + 0:.4f}",
    "percent": lambda value: "unknown" if value is None else f"{100 * value:.2f}",
    "small": lambda value: f"{value:.1e}",
    "blocks": _blocks,
    "command": lambda command: re.sub(r"^__main__\.py ", "inheritune ", command),  # of python -m inheritune_lit
}
