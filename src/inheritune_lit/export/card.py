"""The model card of an export: what receipts, settings and results say, and "unknown" where they are silent."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.folders import natural
from inheritune_lit.recipes.recipe import Recipe
from inheritune_lit.runs.folder import ranks_of, share_of_training
from inheritune_lit.runs.lineage import Lineage

TEMPLATE = "card.md.jinja"
# The hub's identifiers; it refuses a card with any other.
LICENSES = """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
    lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
    fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown
    other
"""


def check_metadata(license: str | None, **names: str | None) -> None:
    """Raises InheritError unless the hub would take a licence, and names of models, told as option=name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    known = LICENSES.split()
    if license is not None and license not in known:
        near = difflib.get_close_matches(re.sub(r"[\s_]+", "-", license.strip().lower()), known, 1)
        raise InheritError(
            f"--license {license!r} is none of the Hugging Face hub's identifiers: expected "
            f"{near[0] + '?' if near else 'one such as apache-2.0, mit, llama2; `other` if it has none for it.'}"
        )
    for option, name in names.items():
        try:
            if name is not None:
                validate_repo_id(name)
        except HFValidationError as error:
            raise InheritError(
                f"--{option} {name!r} is no name on the Hugging Face hub: expected OWNER/NAME, as "
                "openlm-research/open_llama_3b."
            ) from error


def render_card(
    receipt: Mapping[str, Any],
    lineage: Lineage,
    *,
    name: str,
    context: int,
    architecture: str,
    attention: str | None = None,
) -> str:
    """Markdown with the front matter that the Hugging Face hub reads.

    Args:
        receipt: The export's, but for its files; licence and base model as they were stated, or None.
        lineage: Where the checkpoint comes from.
        name: The model's, as its heading.
        context: Tokens the model can look back on.
        architecture: transformers' name for it, as `llama`.
        attention: The implementation of attention that it needs; None is transformers' own choice.
    """
    from jinja2 import ChainableUndefined, Environment, PackageLoader, UndefinedError

    class Unstated(ChainableUndefined):
        """What nobody stated, however deep it is asked for: the filters say "unknown" of it, alone it is an error."""

        __str__ = ChainableUndefined._fail_with_undefined_error

    recipe = dict(lineage.recipe or {})
    environment = Environment(
        loader=PackageLoader("inheritune_lit.export", "."),
        undefined=Unstated,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= FILTERS
    try:
        return environment.get_template(TEMPLATE).render(
            receipt=receipt,
            lineage=lineage,
            start=lineage.start,
            recipe=recipe,
            taught=Recipe.of(recipe).teacher is not None,
            teacher=(lineage.run or {}).get("teacher"),
            run=_run(lineage.run or {}, lineage.steps),
            evaluations=[result for result in lineage.evaluations if result.get("kind") == "evaluation"],
            held_out=next((result for result in lineage.evaluations if result.get("kind") == "validation_loss"), None),
            versions={**(lineage.run or {}).get("versions", {}), **receipt["versions"]},
            recipe_yaml=yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True),
            name=name,
            context=context,
            architecture=architecture,
            attention=attention,
            license=receipt["license"],
            base_model=receipt["base_model"],
        )
    except UndefinedError as error:
        raise InheritError(f"A receipt or result that the model card needs is not whole: {error}") from error


def _run(receipt: Mapping[str, Any], steps: int | None) -> dict[str, Any]:
    """What a run's receipt says of machine, time and losses; the last two only of the checkpoint that it ended with."""
    if receipt.get("steps") not in (None, steps):
        receipt = {**receipt, "seconds": None, "losses": None}
    hardware, losses = receipt.get("hardware") or {}, receipt.get("losses") or {}
    gpus, processes = hardware.get("gpus"), hardware.get("world_size")
    machine = f"{processes or len(gpus)} × {gpus[0]}" if gpus else None
    if gpus == [] and hardware.get("cores"):
        machine = f"CPU, {hardware['cores']} cores ({hardware.get('processor')})"
    seconds, share = receipt.get("seconds"), share_of_training(ranks_of(receipt.get("launches") or []))
    return {
        "hardware": machine,
        "hours": None if seconds is None else f"{seconds / 3600:.2f}",
        "losses": {
            f"training at the end{f', {share}' if share else ''}": losses.get("training"),
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


FILTERS: dict[str, Callable[[Any], Any]] = {
    "in_order": lambda origins: sorted(origins.items(), key=lambda item: natural(item[0])),
    "known": lambda value: str(value) if value or value == 0 else "unknown",
    "code": lambda value: f"`{value}`" if value else "unknown",
    "number": _number,
    "loss": lambda value: "unknown" if value is None else f"{value + 0:.4f}",
    "percent": lambda value: "unknown" if value is None else f"{100 * value:.2f}",
    "small": lambda value: f"{value:.1e}",
    "blocks": _blocks,
    "command": lambda command: re.sub(r"^__main__\.py ", "inheritune ", command),  # of python -m, as 0.1.0 noted it
}
