"""A recipe as it is sent to another lab: written from a recipe and its lock, and read again, as a folder or a zip."""

import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from inheritune_lit.base.differences import differences
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.figure import BLUE, Line, draw_losses, drawing
from inheritune_lit.base.folders import staging
from inheritune_lit.base.yaml_document import read_document
from inheritune_lit.plan.model import count_parameters
from inheritune_lit.recipes.listing import LOCK, shipped
from inheritune_lit.recipes.recipe import Recipe
from inheritune_lit.reproduce.document import lock_of, read_lock
from inheritune_lit.reproduce.facts import recipe_hashes
from inheritune_lit.reproduce.inputs import FOLDERS, folders_of, reference_folder

SURGERY, DATA, EVAL, PAGE = "surgery.yaml", "data.yaml", "eval", "README.md"
MOST_BYTES, MOST_FILES = 2**24, 256  # of a zip's content; a shipped recipe has some 100 kB in a dozen files


@dataclass(frozen=True)
class Bundle:
    """A recipe with its lock, read and found to belong together."""

    folder: Path
    name: str
    settings: dict[str, Any]
    """litGPT's, as the recipe has them"""
    lock: dict[str, Any]

    @classmethod
    def read(cls, recipe: Path) -> "Bundle":
        """The recipe in a file and the lock beside it.

        Raises:
            InheritError: one of them is missing or not whole, or the recipe is not the one that was locked.
        """
        settings, lock = read_document(recipe).content, read_lock(lock_of(recipe))
        if lines := differences(lock["exact"]["recipe"], recipe_hashes(settings)):
            blocks = ", ".join(sorted({line.partition(":")[0] for line in lines}))
            raise InheritError(
                f"{recipe} is not what {lock_of(recipe)} was made from: its {blocks} differs. Lock it anew from a run "
                "of it, or take back the change."
            )
        return cls(recipe.parent, recipe.stem, settings, lock)

    @classmethod
    def open(cls, place: str, work: Path) -> "Bundle":
        """What the user names: a folder or a zip that `ship` wrote, or a shipped recipe, which is shipped into `work`.

        Raises:
            InheritError: it is none of these, or `read` refuses it.
        """
        path, folder = Path(place), work / "recipe"
        if path.suffix == ".zip" and path.is_file():
            with staging(folder, overwrite=True) as made:
                extract(path, made)
        elif path.is_dir():
            folder = path.absolute()
        elif (recipe := shipped() / f"{place}.yaml").is_file():
            with staging(folder, overwrite=True) as made:
                write(cls.read(recipe), made)
        else:
            raise InheritError(
                f"{place} is no folder, no .zip and no shipped recipe; `inheritune recipes list` has those."
            )
        locks = sorted(folder.glob(f"*{LOCK}"))
        if len(locks) != 1:
            raise InheritError(
                f"{folder} has {len(locks)} locks (*{LOCK}), expected one. Name a folder that `inheritune recipes "
                "ship` wrote."
            )
        return cls.read(folder / f"{locks[0].name.removesuffix(LOCK)}.yaml")


def write(bundle: Bundle, folder: Path) -> None:
    """Fills a folder with all that another lab needs besides the package, the reference and the text."""
    inputs, exact = bundle.lock["inputs"], bundle.lock["exact"]
    reference = reference_folder(inputs["reference"])
    tokenizer = FOLDERS["start"] if inputs["surgery"] else reference  # surgery's folder has the tokenizer, too
    teacher = reference if exact["teacher"] in (None, exact["reference"]) else "teacher"
    settings = folders_of(bundle.settings, tokenizer=tokenizer, teacher=teacher)
    head = f"# {bundle.name}, as it was run; {PAGE} says what it makes, and the commands in their order.\n"
    _dump(folder / f"{bundle.name}.yaml", settings, head)
    if inputs["surgery"]:
        places = {"source_dir": reference, "out_dir": FOLDERS["start"]}
        _dump(folder / SURGERY, {**inputs["surgery"], **places})
    places = {
        "input_dir": inputs["data"].get("input_dir", FOLDERS["text"]),
        "out_dir": FOLDERS["tokens"],
        "tokenizer_dir": tokenizer,
    }
    _dump(folder / DATA, {**inputs["data"], **places})
    lock = lock_of(bundle.folder / f"{bundle.name}.yaml")
    shutil.copyfile(lock, folder / lock.name)
    for suite in bundle.lock["whole_run"]["scores"]:
        if (source := shipped() / "eval" / f"{suite}.yaml").is_file():
            (folder / EVAL).mkdir(exist_ok=True)
            shutil.copyfile(source, folder / EVAL / source.name)
            if tasks := read_document(source).get("task_dir"):
                shutil.copytree(source.parent / tasks, folder / EVAL / tasks, dirs_exist_ok=True)
    if curve := [(tokens, loss) for tokens, loss in bundle.lock["whole_run"]["curve"]]:
        lines = "".join(f"{tokens},{loss}\n" for tokens, loss in curve)
        (folder / "validation.csv").write_text(f"tokens,loss\n{lines}", encoding="utf-8")
        with drawing(folder / "validation", (7, 4), "Validation loss") as (axes,):
            draw_losses(axes, [Line(bundle.name, BLUE, curve)], "tokens")
    (folder / PAGE).write_text(_page(bundle, settings), encoding="utf-8")


def ship(recipe: Path, out_dir: Path, overwrite: bool) -> None:
    """Writes a folder, or a zip of one where `out_dir` is named so.

    Raises:
        InheritError: the recipe has no lock, or not its own; or `out_dir` exists.
    """
    bundle = Bundle.read(recipe)
    if out_dir.suffix != ".zip":
        with staging(out_dir, overwrite=overwrite) as folder:
            write(bundle, folder)
        return
    if out_dir.exists() and not overwrite:
        raise InheritError(f"{out_dir} exists already. Choose another name, or pass --overwrite to replace it.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / bundle.name
        folder.mkdir()
        write(bundle, folder)
        packed = shutil.make_archive(str(Path(name) / "packed"), "zip", name, bundle.name)
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(packed, out_dir)


def extract(path: Path, folder: Path) -> None:
    """Unpacks a shipped zip into an empty folder, without the folder that everything in it may be in.

    Raises:
        InheritError: it is no zip, or holds what no shipped recipe does: names that lead out, links, or too much.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            for entry in entries:
                parts = Path(entry.filename).parts
                if Path(entry.filename).is_absolute() or ".." in parts or "\\" in entry.filename or not parts:
                    raise InheritError(f"{path} holds {entry.filename!r}, a name that leads out of its folder.")
                if stat.S_ISLNK(entry.external_attr >> 16):
                    raise InheritError(f"{path} holds {entry.filename!r}, a link, which no shipped recipe has.")
            size = sum(entry.file_size for entry in entries)
            if size > MOST_BYTES or len(entries) > MOST_FILES:
                raise InheritError(
                    f"{path} unpacks to {size:,} bytes in {len(entries):,} files, a shipped recipe has at most "
                    f"{MOST_BYTES:,} in {MOST_FILES}."
                )
            common = {Path(entry.filename).parts[0] for entry in entries if len(Path(entry.filename).parts) > 1}
            depth = int(len(common) == 1 and all(len(Path(entry.filename).parts) > 1 for entry in entries))
            for entry in entries:
                target = folder.joinpath(*Path(entry.filename).parts[depth:])
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as file:  # its stated size may be a lie
                    content = file.read(entry.file_size + 1)
                if len(content) > entry.file_size:
                    raise InheritError(
                        f"{path}: {entry.filename} is larger than the zip says. It is damaged, or worse."
                    )
                target.write_bytes(content)
    except (OSError, ValueError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InheritError(f"Can't unpack {path}: {error}. Get it again from who made it.") from error


def _page(bundle: Bundle, settings: Mapping[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader

    recipe = Recipe.of(settings)
    environment = Environment(
        loader=PackageLoader("inheritune_lit.reproduce", "."),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.md.jinja").render(
        name=bundle.name,
        lock=bundle.lock,
        inputs=bundle.lock["inputs"],
        reference=reference_folder(bundle.lock["inputs"]["reference"]),
        whole=bundle.lock["whole_run"],
        first=bundle.lock["first_steps"],
        made=bundle.lock["made"],
        recipe=recipe,
        parameters=count_parameters(
            recipe.config, tied=bool((settings.get("train") or {}).get("tie_embeddings"))
        ).total,
        settings=settings,
        surgery=SURGERY,
        data=DATA,
        lock_file=f"{bundle.name}{LOCK}",
    )


def _dump(path: Path, settings: Mapping[str, Any], head: str = "") -> None:
    path.write_text(head + yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True), encoding="utf-8")
