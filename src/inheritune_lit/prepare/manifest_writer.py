"""What the tasks did → quarantine report and manifest."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import write_json_whole
from inheritune_lit.data.inspect import print_domains
from inheritune_lit.data.manifest import MANIFEST, Manifest
from inheritune_lit.prepare.listing import LeftOut, summary

QUARANTINE = "quarantine.jsonl"


def check_quarantine(folder: Path, records: list[dict[str, Any]], max_bad_share: float) -> dict[str, Any]:
    """Writes the report of documents that could not be used, if there are any; returns their numbers by problem.

    Raises:
        InheritError: they are more than that share of all documents.
    """
    bad = sorted(
        (entry for r in records for entry in r["quarantine"]), key=lambda entry: (entry["file"], entry["line"])
    )
    documents = sum(record["documents"] for record in records)
    if not bad:
        return {}
    with (folder / QUARANTINE).open("w", encoding="utf-8", errors="backslashreplace") as file:
        for entry in bad:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    if len(bad) > max_bad_share * documents:
        raise InheritError.listing(
            f"{len(bad):,} of {documents:,} documents are bad, more than max_bad_share ({max_bad_share:g})",
            [f"{entry['file']}, line {entry['line']}: {entry['problem']}" for entry in bad],
            f"The whole list is {folder / QUARANTINE}. Mend or remove them and start over with --overwrite, or "
            "run the same command with a higher --max_bad_share to leave them out.",
            most=8,
        )
    return dict(sorted(Counter(_kind(entry["problem"]) for entry in bad).items()))


def _kind(problem: str) -> str:
    return problem.partition(" (")[0].partition(":")[0]


def write_manifest(
    folder: Path,
    content: Mapping[str, Any],
    records: list[dict[str, Any]],
    left_out: list[dict[str, Any]],
    domains: set[str],
) -> None:
    """Merges the tasks' records into the manifest, checks that it describes what is there, and puts it in place.

    Raises:
        InheritError: a split has no tokens, or a domain no documents.
    """
    special = sum((Counter(record["special_tokens"]) for record in records), Counter[str]())
    files = sorted((file for record in records for file in record["files"]), key=lambda f: f["path"])
    manifest = {
        **content,
        **({"special_tokens": dict(sorted(special.items()))} if special else {}),
        "source": {"files": files, "left_out": left_out},
        "splits": {split: _domains(records, split) for split in ("train", "val")},
    }
    for split, entries in manifest["splits"].items():
        if not sum(entry["tokens"] for entry in entries):
            documents = sum(entry["documents"] for domains in manifest["splits"].values() for entry in domains)
            raise InheritError(
                f"No tokens for the split {split!r} from {documents:,} documents. Set val_share "
                f"({manifest['val_share']}) or val_glob ({manifest['val_glob']!r}) so that both splits get some, and "
                "start over with --overwrite."
            )
    found = {entry["domain"] for entries in manifest["splits"].values() for entry in entries}
    if vanished := sorted(domains - found) if "sampling" not in content else []:
        raise InheritError(
            f"Nothing is left of the domain {', '.join(vanished)}: all its files are empty, or its documents blank or "
            "broken. Mend its files or move them out of the folder, and start over with --overwrite."
        )
    write_json_whole(folder / MANIFEST, manifest)
    Manifest(folder).check_files()


def _domains(records: list[dict[str, Any]], split: str) -> list[dict[str, Any]]:
    """One entry per domain of a split, sorted, its shards in the order of the tasks."""
    shards = [shard for record in records for shard in record["shards"] if shard["split"] == split]
    return [
        {
            "domain": domain,
            "tokens": sum(shard["tokens"] for shard in mine),
            "documents": sum(shard["documents"] for shard in mine),
            "max_token_id": max(shard["max_token_id"] for shard in mine),
            "shards": [{name: shard[name] for name in ("path", "tokens", "documents", "sha256")} for shard in mine],
        }
        for domain in sorted({shard["domain"] for shard in shards})
        if (mine := [shard for shard in shards if shard["domain"] == domain])
    ]


def print_table(manifest: Manifest) -> None:
    """Documents and tokens by domain and split, and what of the budget or of the files is not in them."""
    print_domains(manifest)
    sampled = manifest.content.get("sampling", {})
    for domain, entry in sampled.items():
        share = round(manifest.content["budget"] * (manifest.content.get("proportions") or {}).get(domain, 1))
        if manifest.content.get("renormalize") and entry["wanted"] < 0.99 * share:
            print(
                f"{domain} falls short of its share: {entry['wanted']:,} tokens of {share:,}. The other domains have "
                "the rest, in proportion (renormalize)."
            )
        if "available" in entry:
            epochs, tokens = entry["got"] / entry["available"], entry["available"]
            print(f"{domain} is repeated: {epochs:.2f} epochs over {tokens:,} tokens")
        elif entry["wanted"] and abs(entry["got"] / entry["wanted"] - 1) > 0.01:
            print(f"{domain} misses its share by more than 1 %: its documents are too long for so few tokens")
    source = manifest.content["source"]
    empty = [LeftOut(file["path"], file["size"], "empty") for file in source["files"] if file.get("empty")]
    for line in summary([*(LeftOut(**entry) for entry in source.get("left_out", [])), *empty]):
        print(f"Left out: {line}")
    if special := manifest.content.get("special_tokens"):
        print("Special tokens in the texts themselves: " + ", ".join(f"{n:,} {token}" for token, n in special.items()))
    if bad := manifest.content.get("quarantine"):
        listed = ", ".join(f"{number:,} {kind}" for kind, number in bad.items())
        print(f"Left out and listed in {manifest.folder / QUARANTINE}: {listed}")
