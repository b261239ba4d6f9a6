"""`inheritune report`: runs side by side, and beside what was published, as one page to send and as Markdown.

It reads receipts, logs and results, and computes nothing that needs a model: torch is not imported.
"""

import sys
from pathlib import Path

from inheritune_lit import published
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.folders import refuse_to_replace, staging

PAGE, TEXT, PLOTS = "report.html", "report.md", "plots"


def report(
    runs: list[Path], *, out_dir: Path = Path("report"), baselines: str = "auto", overwrite: bool = False
) -> None:
    """Writes report.md, a self-contained report.html, and the plots as PNG and SVG, about one or several runs.

    What a run lacks, such as an evaluation, is named with the command that makes it.

    Args:
        runs: One or several folders of training runs; checkpoints with results of `inheritune evaluate` in
            evaluation/, too.
        out_dir: The folder to write. A report that is there is replaced.
        baselines: Published tables to put beside: low_data, fineweb_edu, gpt2_losses, with commas between; none; auto
            takes those with the tasks that were evaluated.
        overwrite: Replace OUT_DIR even if it holds something else than a report.
    """
    from inheritune_lit.report.render import write
    from inheritune_lit.report.subjects import read_subjects

    _check_baselines(baselines)
    refuse_to_replace(out_dir, *map(Path, runs))
    subjects = read_subjects(runs)
    is_report = (out_dir / PAGE).is_file() and {path.name for path in out_dir.iterdir()} <= {PAGE, TEXT, PLOTS}
    with staging(out_dir, overwrite=overwrite or is_report) as folder:
        write(subjects, folder, baselines=baselines, command=["inheritune", *sys.argv[1:]])
    print(f"{out_dir / PAGE} ({(out_dir / PAGE).stat().st_size / 1000:,.0f} kB, opens anywhere), {out_dir / TEXT}")


def _check_baselines(baselines: str) -> None:
    known = (*published.SCORE_TABLES, *published.LOSS_TABLES)
    unknown = [name for name in baselines.split(",") if name not in known]
    if baselines not in ("auto", "none") and unknown:
        raise InheritError(
            f"--baselines {baselines}: no published table is named {', '.join(unknown)}. There are {', '.join(known)}; "
            "or say none, or auto."
        )
