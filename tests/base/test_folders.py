import fcntl
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from inheritune_lit.base.errors import InheritError, InUse
from inheritune_lit.base.files import read_json, sha256_file, write_json
from inheritune_lit.base.folders import locked, refuse_to_replace, staging


def test_appears_whole(tmp_path: Path) -> None:
    with staging(tmp_path / "a/b") as folder:
        (folder / "sub").mkdir()
        (folder / "sub/file").write_text("x")
        assert not (tmp_path / "a/b").exists()
    assert (tmp_path / "a/b/sub/file").read_text() == "x"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]


def fail_half_way(out_dir: Path, *, resume: bool) -> None:
    with staging(out_dir, resume=resume) as folder:
        (folder / "half").touch()
        raise RuntimeError


def test_failure_leaves_nothing_or_what_can_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fail_half_way(tmp_path / "out", resume=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError):
        fail_half_way(tmp_path / "out", resume=True)
    with staging(tmp_path / "out", resume=True) as folder:
        assert (folder / "half").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_run_left_is_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / ".out.staging/sub").mkdir(parents=True)
    (tmp_path / ".out.staging/sub/stale").touch()
    with staging(tmp_path / "out") as folder:
        assert list(folder.iterdir()) == []


def test_refused_output_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InheritError, match="exists already"), staging(tmp_path / "out"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_killed_between_the_renames_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / ".out.old").mkdir()
    (tmp_path / ".out.old/precious").touch()
    with pytest.raises(InheritError, match="exists already"), staging(tmp_path / "out"):
        pass
    assert (tmp_path / "out/precious").exists()


@pytest.mark.parametrize("there", [True, False])
def test_killed_before_the_replaced_link_was_removed(there: bool, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / ".out.old").symlink_to("precious" if there else "nowhere")
    with staging(tmp_path / "out", overwrite=True) as folder:
        (folder / "new").touch()
    assert (tmp_path / "out/new").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "precious"]


@pytest.mark.parametrize("call", ["open", "flock"])
def test_a_folder_that_its_holder_removes_meanwhile_is_in_use(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = os if call == "open" else fcntl
    real = getattr(module, call)

    def removed(*arguments: Any) -> Any:
        (tmp_path / "out").rmdir()
        return real(*arguments)

    monkeypatch.setattr(module, call, removed)
    with pytest.raises(InUse), locked(tmp_path / "out"):
        pass
    monkeypatch.undo()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(InheritError, match="File exists: .*Choose an --out_dir") as info, locked(tmp_path / "link/out"):
        pass
    assert not isinstance(info.value, InUse)


def test_second_process_is_refused_and_a_dead_one_does_not_block(tmp_path: Path) -> None:
    holder = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from inheritune_lit.base.folders import staging
        with staging(Path(sys.argv[1])):
            print("holding", flush=True)
            time.sleep(60)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", holder, tmp_path / "out"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == "holding\n"
        with pytest.raises(InheritError, match="Another process is writing"), staging(tmp_path / "out"):
            pass
        assert (tmp_path / ".out.staging").exists()
        process.kill()
        process.wait()
    with staging(tmp_path / "out") as folder:
        (folder / "file").touch()
    assert (tmp_path / "out/file").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_read_only_parent(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    script = textwrap.dedent("""
        import os, sys
        from pathlib import Path
        from inheritune_lit.base.folders import InheritError, staging
        os.setuid(65534)
        try:
            with staging(Path(sys.argv[1])):
                pass
        except InheritError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "out"], capture_output=True, text=True, check=True)
    assert "Choose an --out_dir that you may write" in done.stdout


def test_json_errors_name_the_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    assert read_json(tmp_path / "a.json", "receipt") == {"a": 1}
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "c.json").write_text("[]")
    for name, problem in (("b.json", "Can't read the receipt"), ("c.json", "holds a list"), ("d.json", "Can't read")):
        with pytest.raises(InheritError, match=problem):
            read_json(tmp_path / name, "receipt")


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")


@pytest.mark.parametrize("out_dir", ["run", "run/model", "run/../run", "link"])
def test_what_is_read_is_never_replaced(out_dir: str, tmp_path: Path) -> None:
    (tmp_path / "run/model").mkdir(parents=True)
    (tmp_path / "link").symlink_to("run")
    with pytest.raises(InheritError, match=r"would replace .*run/model, which is read"):
        refuse_to_replace(tmp_path / out_dir, tmp_path / "other", tmp_path / "run/model")
    refuse_to_replace(tmp_path / "run/model/export", tmp_path / "run/model")
    refuse_to_replace(tmp_path / "runs", tmp_path / "run/model")
