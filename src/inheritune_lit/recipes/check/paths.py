"""The paths in a recipe: litGPT takes every character as it stands, as no shell has seen it."""

import os

from inheritune_lit.base.paths import in_full, problem_of
from inheritune_lit.base.yaml_document import Document
from inheritune_lit.recipes.check.findings import Finding


def check_paths(document: Document) -> list[Finding]:
    settings = document.get("data.init_args")
    known = (
        [f"data.init_args.{key}" for key in settings if str(key).endswith(("_path", "_dir", "path", "dir"))]
        if isinstance(settings, dict)
        else []
    )
    findings = []
    for key in ("out_dir", "tokenizer_dir", "initial_checkpoint_dir", "resume", *known):
        value = document.get(key)
        if isinstance(value, str) and (problem := problem_of(value)):
            full = os.path.expandvars(in_full(value.strip()))
            fix = f"Write it out in full: {full}." if full.strip() and "\0" not in full else "Name a folder."
            findings.append(Finding("error", key, f"The path {value!r} {problem}.", fix))
    return findings
