"""`inheritune evaluate`: lm-eval's own task definitions and questions in their own schema, without a network."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import yaml
from helpers.models import make_tokenizer
from helpers.models_to_export import LLAMA, make_reference
from helpers.questions import SUBJECTS, write_data
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models import huggingface
from lm_eval.tasks import TaskManager
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from inheritune_lit.base.errors import InheritError, InUse
from inheritune_lit.evaluate import command, harness
from inheritune_lit.evaluate.command import evaluate
from inheritune_lit.evaluate.harness import DataOptions, ModelOptions, check_data, load_task, task_config
from inheritune_lit.evaluate.subject import find
from inheritune_lit.evaluate.suites import Suite, SuiteTask, check_suite, definitions, read_suite, registry
from inheritune_lit.export import parity, reload
from inheritune_lit.export.command import export_checkpoint

SEED = 1  # of a model that answers MMLU otherwise with four examples than with five
PAPER = {  # arXiv 2404.08634: metric and examples before the question
    **{f"{name}": ("acc", 0) for name in ("piqa", "boolq", "winogrande", "wsc", "logiqa", "truthfulqa_mc2")},
    **{"mnli": ("acc", 0), "qnli": ("acc", 0), "wnli": ("acc", 0), "mmlu": ("acc", 5)},
}
PAPER_GPT2 = {
    **dict.fromkeys(("arc_easy", "piqa", "sciq", "lambada_openai"), ("acc", 0)),
    "hellaswag": ("acc_norm", 0),
}


@pytest.fixture(scope="module", autouse=True)
def _quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Saves time: lm-eval's description of the machine takes a second a task, and says nothing about a score."""
    with pytest.MonkeyPatch.context() as patch:
        import lm_eval.evaluator

        patch.setattr(lm_eval.evaluator, "add_env_info", lambda _: None)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr(parity, "reload_in_new_process", reload.reload)  # that it is the same is export's test
        yield


def save_model(folder: Path, vocab_size: int, *, uniform: bool = False, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(
        LlamaConfig(**sizes, vocab_size=vocab_size, max_position_embeddings=4096, initializer_range=0.4)
    )
    if uniform:
        model.lm_head.weight.data.zero_()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A litGPT checkpoint that can take MMLU's five examples."""
    folder = tmp_path_factory.mktemp("models") / "checkpoint"
    return make_reference(folder, "llama", LLAMA | {"max_position_embeddings": 2048}, block_size=2048, seed=SEED)


@pytest.fixture(scope="module")
def exported(checkpoint: Path, _quiet: None) -> Path:
    export_checkpoint(checkpoint, checkpoint.parent / "exported")
    return checkpoint.parent / "exported"


@pytest.fixture(scope="module")
def suite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """low_data with four of MMLU's 57 subjects."""
    folder = tmp_path_factory.mktemp("suite")
    suite = yaml.safe_load((Path(command.__file__).parents[1] / "recipes/shipped/eval/low_data.yaml").read_text())
    suite["tasks"]["mmlu_four"] = suite["tasks"].pop("mmlu")
    (folder / "four.yaml").write_text(yaml.dump({**suite, "task_dir": "tasks"}, sort_keys=False))
    group = {
        "group": "mmlu_four",
        "task": [f"mmlu_{subject}" for subject in SUBJECTS],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
        "metadata": {"version": 2},
    }
    (folder / "tasks").mkdir()
    (folder / "tasks/mmlu_four.yaml").write_text(yaml.dump(group))
    return folder / "four.yaml"


@pytest.fixture(scope="module")
def manager(suite_file: Path) -> TaskManager:
    """lm-eval's tasks and mmlu_four: listing them takes some seconds, so all tests here share one list."""
    return registry(suite_file.parent / "tasks")


@pytest.fixture(scope="module")
def command_line(data: Path, exported: Path, suite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What lm-eval's own command line says, started before anything else: two processes that take a while.

    In the folder of the data, lm-eval finds them under their names, so nothing at all is replaced.
    """
    out = tmp_path_factory.mktemp("lm_eval")
    zero_shot = [name for name in PAPER if name != "mmlu"]
    processes = []
    for tasks, shots in ((zero_shot, 0), (["mmlu_four"], 5)):
        args = ["--model", "hf", "--model_args", f"pretrained={exported}", "--device", "cpu", "--batch_size", "8"]
        args += ["--tasks", ",".join(tasks), "--num_fewshot", str(shots), "--output_path", str(out / f"{shots}.json")]
        args += ["--include_path", str(suite_file.parent / "tasks")]
        environment = os.environ | {"HF_HOME": str(out / "cache"), "HF_HUB_OFFLINE": "1"}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "lm_eval", *args],
                **{"cwd": data, "env": environment, "text": True},
                **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
            )
        )

    def wait() -> dict[str, dict[str, Any]]:
        results: dict[str, dict[str, Any]] = {}
        for process in processes:
            output, _ = process.communicate()
            assert process.returncode == 0, output
        for file in out.glob("*.json"):
            content = json.loads(file.read_text())
            results |= {
                name: content["results"][name] | {"version": content["versions"][name]} for name in content["results"]
            }
        return results

    return wait


def sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


class Hashed(LM):
    """A model that gives each answer a likelihood by its hash: the same everywhere, to the bit."""

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return [(-int(sha256(request.args)[:6], 16) / 2**20, False) for request in requests]

    loglikelihood_rolling = generate_until = None


def facts(output: dict[str, Any], name: str) -> dict[str, Any]:
    """Of a task: its definition, a hash of each question with its answers and the right one, and the scores."""
    asked = [
        [[[str(part) for part in args] for args in sample["arguments"]], str(sample["target"])]
        for sample in output["samples"][name]
    ]
    kept = ("output_type", "training_split", "validation_split", "test_split", "fewshot_split")
    return {
        "version": str(output["versions"][name]),
        "num_fewshot": output["n-shot"][name],
        **{key: output["configs"][name].get(key) for key in kept},
        "questions": [sha256(question)[:12] for question in asked],
        "scores": {key: value for key, value in output["results"][name].items() if isinstance(value, float)},
    }


def test_questions_and_scores_are_those_of_lm_eval_0_4_9(data: Path, manager: TaskManager) -> None:
    """lm_eval_0.4.9.json holds the facts under that release, for which the suites were written; a change is named."""
    known = json.loads((Path(__file__).parent / "lm_eval_0.4.9.json").read_text())
    tasks = [task for task in read_suite("low_data").tasks if task.name != "mmlu"]
    tasks += [SuiteTask(f"mmlu_{subject}", "acc", 5, "1.0") for subject in SUBJECTS]
    assert {task.name for task in tasks} == known.keys()
    changes = []
    for task in tasks:
        loaded = load_task(task, task_config(task, manager, DataOptions(data)), manager)
        output = simple_evaluate(Hashed(), tasks=[loaded], num_fewshot=task.num_fewshot, task_manager=manager)
        now, then = facts(output, task.name), known[task.name]
        changes += [f"{task.name}: {key} is {now[key]}, was {then[key]}" for key in then if now[key] != then[key]]
    assert not changes, "\n".join(changes)


def test_equals_lm_evals_own_command_line(
    data: Path, checkpoint: Path, exported: Path, suite_file: Path, command_line: Any, tmp_path: Path
) -> None:
    evaluate(str(checkpoint), suite=str(suite_file), data_dir=data, out_dir=tmp_path)
    ours = json.loads((tmp_path / "four.json").read_text())["tasks"]
    theirs = command_line()
    assert len(ours) == 10
    for name, result in ours.items():
        assert result["value"] == theirs[name]["acc,none"]
        assert result["stderr"] == theirs[name]["acc_stderr,none"]
        assert result["version"] == str(theirs[name]["version"])
    assert ours["mmlu_four"]["samples"] == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == ["four.json"], "the export is gone"
    assert len({result["value"] for result in ours.values()}) > 4, "a model that always says the same proves little"

    # the negative control: with one example fewer, MMLU's number is another one
    planted = yaml.safe_load(suite_file.read_text())
    planted["tasks"] = {"mmlu_four": planted["tasks"]["mmlu_four"] | {"num_fewshot": 4}}
    suite_file.with_name("planted.yaml").write_text(yaml.dump(planted))
    evaluate(str(exported), suite=str(suite_file.with_name("planted.yaml")), data_dir=data, out_dir=tmp_path)
    wrong = json.loads((tmp_path / "planted.json").read_text())["tasks"]["mmlu_four"]
    assert wrong["value"] != theirs["mmlu_four"]["acc,none"]


def test_an_export_is_the_checkpoint(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    ours, theirs = find(str(checkpoint)), find(str(exported))
    assert ours.fingerprint == theirs.fingerprint
    broken = shutil.copytree(exported, tmp_path / "broken")
    (broken / "config.json").write_text((broken / "config.json").read_text().replace('"silu"', '"gelu"'))
    with pytest.raises(InheritError, match="config.json has SHA-256"):
        _ = find(str(broken)).fingerprint


def test_it_uses_the_tokenizer_that_the_export_says(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval takes the fast one unless it is told otherwise, and OpenLLaMA's once was wrong."""
    asked = []
    monkeypatch.setattr(huggingface, "HFLM", lambda **options: asked.append(options["use_fast_tokenizer"]))
    receipt = harness.read_receipt(exported)
    assert receipt["tokenizer"]["use_fast"] is True
    harness.load_model(exported, ModelOptions())
    monkeypatch.setattr(harness, "read_receipt", lambda _: receipt | {"tokenizer": {"use_fast": False}})
    harness.load_model(exported, ModelOptions())
    assert asked == [True, False]


def definition(suite: Suite) -> dict[str, tuple[str, int]]:
    return {task.name: (task.metric, task.num_fewshot) for task in suite.tasks}


def test_shipped_suites_are_the_papers(manager: TaskManager) -> None:
    low_data, gpt2 = read_suite("low_data"), read_suite("gpt2")
    assert definition(low_data) == PAPER
    assert definition(gpt2) == PAPER_GPT2
    for suite in (low_data, gpt2):
        check_suite(suite, manager)  # every task, metric, version and few-shot count is what lm-eval has
    smoke = read_suite("smoke")
    check_suite(smoke, TaskManager(include_path=str(smoke.task_dir), include_defaults=False))
    assert len(list(definitions("mmlu", manager))) == 57


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("piqa", {"metric": "f1"}, "piqa: it has no metric 'f1', only acc, acc_norm"),
        ("boolq", {"metric": "acc_norm"}, "boolq: it has no metric 'acc_norm', only acc"),
        ("mmlu", {"version": "1"}, "mmlu: its version is 2, the suite expects 1"),
        ("truthfulqa_mc2", {"num_fewshot": 5}, "truthfulqa_mc2: lm-eval runs it with 0 examples always, .* expects 5"),
        ("wsc", {"name": "wsx"}, "wsx: This lm-eval has no task 'wsx'. Did you mean .*wsc"),
    ],
)
def test_a_wrong_line_of_a_suite_is_caught(
    name: str, change: dict[str, Any], message: str, manager: TaskManager
) -> None:
    suite = read_suite("low_data")
    planted = replace(suite, tasks=tuple(replace(t, **change) if t.name == name else t for t in suite.tasks))
    assert definition(planted) != PAPER or "version" in change
    with pytest.raises(InheritError, match=message):
        check_suite(planted, manager)


@pytest.fixture
def toy(tmp_path: Path) -> tuple[Path, Path]:
    """A uniform model and three tasks with known answers: it takes the choice of the fewest tokens."""
    folder = tmp_path / "uniform"
    make_tokenizer(folder)
    save_model(folder, 64, uniform=True)
    words = [" ".join(f"w{i}" for i in range(n)) for n in (2, 1, 3, 4)]  # the second is the shortest
    (tmp_path / "tasks").mkdir()
    for name, answers in {"toy_a": [1, 1, 1, 0, 2], "toy_b": [3, 2, 1, 1], "toy_c": [0, 0, 3]}.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        rows = [{"context": f"w{i}", "choices": words, "answer": answer} for i, answer in enumerate(answers)]
        (tmp_path / "data" / name / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        task = yaml.safe_load(
            (Path(command.__file__).parents[1] / "recipes/shipped/eval/tasks/next_line.yaml").read_text()
        )
        (tmp_path / f"tasks/{name}.yaml").write_text(yaml.dump(task | {"task": name, "dataset_path": name}))
    tasks = {name: {"metric": "acc", "num_fewshot": 0, "version": 1.0} for name in ("toy_a", "toy_b", "toy_c")}
    (tmp_path / "toy.yaml").write_text(yaml.dump({"task_dir": "tasks", "tasks": tasks}))
    return folder, tmp_path / "toy.yaml"


def run_toy(toy: tuple[Path, Path], **options: Any) -> dict[str, Any]:
    model, suite = toy
    evaluate(str(model), suite=str(suite), **{"data_dir": suite.parent / "data"} | options)
    content: dict[str, Any] = json.loads((model / "evaluation/toy.json").read_text())
    return content


@pytest.fixture
def light_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the suite's own tasks: lm-eval's take five seconds to list."""
    monkeypatch.setattr(
        command, "registry", lambda task_dir: TaskManager(include_path=str(task_dir), include_defaults=False)
    )


@pytest.mark.parametrize(
    ("slower", "asked", "computes"),
    [(3.5, "auto", torch.float32), (0.4, "auto", torch.bfloat16), (3.5, "bfloat16", torch.bfloat16)],
)
def test_a_model_in_16_bits_computes_in_what_is_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slower: float, asked: str, computes: torch.dtype
) -> None:
    """Unless a type is asked for."""
    monkeypatch.setattr("inheritune_lit.base.precision.slowdown", lambda dtype: slower)
    make_tokenizer(save_model(tmp_path / "model", 64))
    LlamaForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.bfloat16).save_pretrained(tmp_path / "model")
    assert harness.load_model(tmp_path / "model", ModelOptions(dtype=asked)).model.dtype == computes


@pytest.mark.usefixtures("light_registry")
def test_accuracy_by_hand(toy: tuple[Path, Path]) -> None:
    tasks = run_toy(toy)["tasks"]
    assert {name: task["value"] for name, task in tasks.items()} == {"toy_a": 3 / 5, "toy_b": 2 / 4, "toy_c": 0}
    assert [task["samples"] for task in tasks.values()] == [5, 4, 3]
    assert [task["batch_size"] for task in tasks.values()] == [8, 8, 8]
    assert [task["dtype"] for task in tasks.values()] == ["float32"] * 3
    assert tasks["toy_a"]["stderr"] == pytest.approx((0.6 * 0.4 / 4) ** 0.5)
    assert tasks["toy_b"]["stderr"] == pytest.approx((0.5 * 0.5 / 3) ** 0.5)

    # another metric is another number: per character, the fourth choice costs least (4 tokens for 11 characters)
    toy[1].write_text(toy[1].read_text().replace("metric: acc", "metric: acc_norm"))
    tasks = run_toy(toy, overwrite=True)["tasks"]
    assert {name: task["value"] for name, task in tasks.items()} == {"toy_a": 0, "toy_b": 1 / 4, "toy_c": 1 / 3}


@pytest.mark.usefixtures("light_registry")
def test_goes_on_after_an_interruption(toy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def interrupted(lm: Any, task: Any, *rest: Any) -> dict[str, Any]:
        ran.append(task.name)
        if ran == ["toy_a", "toy_b"]:
            raise KeyboardInterrupt
        return harness.run_task(lm, task, *rest)

    monkeypatch.setattr(command, "run_task", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_toy(toy)
    assert list(json.loads((toy[0] / "evaluation/toy.json").read_text())["tasks"]) == ["toy_a"]
    whole = run_toy(toy)
    assert ran == ["toy_a", "toy_b", "toy_b", "toy_c"]
    assert {name: task["value"] for name, task in whole["tasks"].items()} == {"toy_a": 0.6, "toy_b": 0.5, "toy_c": 0}
    monkeypatch.setattr(command, "load_model", None)  # nothing to do: no model is loaded
    assert run_toy(toy) == whole
    data = (toy[1].parent / "data").rename(toy[1].parent / "moved")
    assert run_toy(toy, data_dir=data) == whole


@pytest.mark.usefixtures("light_registry")
def test_two_evaluations_at_once(
    toy: tuple[Path, Path], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two suites, each has its own export; of one suite, the second is told. Nothing else there is touched."""
    suite, out = toy[1], tmp_path / "out"
    other = shutil.copy(suite, suite.with_name("other.yaml"))
    (out / "exported").mkdir(parents=True)
    (out / "exported/mine").touch()

    def run(suite: Path, task: str) -> None:
        evaluate(str(checkpoint), suite=str(suite), data_dir=tmp_path / "data", out_dir=out, tasks=task)

    def meanwhile(lm: Any, *rest: Any) -> dict[str, Any]:
        monkeypatch.setattr(command, "run_task", harness.run_task)
        with pytest.raises(InUse, match="Another process is writing .*toy"):
            run(suite, "toy_b")
        run(other, "toy_c")
        assert Path(lm.model.name_or_path, "model.safetensors").is_file()
        return harness.run_task(lm, *rest)

    monkeypatch.setattr(command, "run_task", meanwhile)
    run(suite, "toy_a")
    run(suite, "toy_b")
    assert list(json.loads((out / "toy.json").read_text())["tasks"]) == ["toy_a", "toy_b"]
    assert sorted(path.name for path in out.iterdir()) == ["exported", "other.json", "toy.json"]
    assert (out / "exported/mine").is_file()


@pytest.mark.usefixtures("light_registry")
def test_auto_sizes_each_task(toy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first task may be the one with the shortest questions."""
    sizes = iter((16, 4, 2))
    monkeypatch.setattr(harness, "CPU_BATCH", "auto")
    monkeypatch.setattr(huggingface.HFLM, "_detect_batch_size", lambda *_: next(sizes))
    assert [task["batch_size"] for task in run_toy(toy)["tasks"].values()] == [16, 4, 2]


@pytest.mark.usefixtures("light_registry")
def test_results_are_not_mixed(toy: tuple[Path, Path]) -> None:
    model, suite = toy
    with pytest.raises(InheritError, match="--limit is 0, expected a number of questions"):
        run_toy(toy, limit=0)
    run_toy(toy, tasks="toy_c", limit=2)
    with pytest.raises(InheritError, match="limit: 2 before, null now"):
        run_toy(toy)
    with pytest.raises(InheritError, match='settings.dtype: "auto" before, "float64" now'):
        run_toy(toy, limit=2, dtype="float64")

    content = yaml.safe_load(suite.read_text())
    suite.write_text(yaml.dump({**content, "tasks": {"toy_c": content["tasks"]["toy_c"] | {"num_fewshot": 1}}}))
    with pytest.raises(InheritError, match="toy_c num_fewshot: 0 before, 1 now"):
        run_toy(toy, limit=2)
    suite.write_text(yaml.dump(content))

    questions = suite.parent / "data/toy_c/test.jsonl"
    before = questions.read_text()
    questions.write_text(before.replace('"answer": 3', '"answer": 2'))
    with pytest.raises(InheritError, match="toy_c data_sha256"):
        run_toy(toy, limit=2)
    questions.write_text(before)

    settings = model / "tokenizer_config.json"
    before = settings.read_text()
    settings.write_text(before.replace("</s>", "<s>"))
    with pytest.raises(InheritError, match="model.settings_sha256"):
        run_toy(toy, limit=2)
    settings.write_text(before)
    save_model(model, 64, seed=1)
    with pytest.raises(InheritError, match="model.fingerprint"):
        run_toy(toy, limit=2)
    assert set(run_toy(toy, overwrite=True)["tasks"]) == {"toy_a", "toy_b", "toy_c"}


@pytest.mark.usefixtures("light_registry")
def test_a_missing_tensor_is_an_error(toy: tuple[Path, Path]) -> None:
    """transformers would go on with a random block."""
    config = toy[0] / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(InheritError, match="model.layers.2.*is missing"):
        run_toy(toy)
    config.write_text(config.read_text().replace('"num_hidden_layers": 3', '"num_hidden_layers": 1'))
    with pytest.raises(InheritError, match="model.layers.1.* belongs to no block"):
        run_toy(toy)


BROKEN = {
    "weights": ("model.safetensors", lambda content: content[:-9], "SafetensorError"),
    "tokenizer": ("tokenizer.json", lambda content: content[:-9], "JSONDecodeError"),
    "no tokenizer": ("tokenizer.json", lambda _: None, "Error: "),
    "settings": ("tokenizer_config.json", lambda content: content[:-9], "JSONDecodeError"),
    "activation": ("config.json", lambda content: content.replace(b'"silu"', b'"swish2"'), "KeyError: .swish2"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_hugging_face_folder_is_named(toy: tuple[Path, Path], what: str) -> None:
    name, change, said = BROKEN[what]
    content = change((toy[0] / name).read_bytes())
    (toy[0] / name).unlink() if content is None else (toy[0] / name).write_bytes(content)
    with pytest.raises(InheritError, match=f"can't open .*{toy[0]}: .*{said}"):
        harness.load_model(toy[0], ModelOptions())


def test_a_gpt2s_inverse_layer_scale_is_not_left_out(tmp_path: Path) -> None:
    """A baseline from Hugging Face that has one: transformers' own choice of attention is another model."""
    torch.manual_seed(0)
    sizes = {"n_layer": 3, "n_head": 2, "n_embd": 16, "vocab_size": 64, "n_positions": 32, "initializer_range": 0.4}
    GPT2LMHeadModel(GPT2Config(**sizes, scale_attn_by_inverse_layer_idx=True)).save_pretrained(make_tokenizer(tmp_path))
    tokens = torch.arange(20)[None]
    logits = {
        how: GPT2LMHeadModel.from_pretrained(tmp_path, attn_implementation=how).eval()(tokens).logits
        for how in ("eager", "sdpa")
    }
    assert torch.equal(harness.load_model(tmp_path, ModelOptions()).model(tokens).logits, logits["eager"])
    assert not torch.allclose(logits["eager"], logits["sdpa"], atol=0.01), "the fault is gone: nothing is to be avoided"


def test_a_model_that_needs_code_is_refused(toy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, transformers would ask whether to run it. --trust_remote_code is for data sets only."""
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "n")
    classes = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (toy[0] / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": classes}))
    with pytest.raises(InheritError, match="needs code of its own repository") as error:
        harness.load_model(toy[0], ModelOptions())
    assert "trust_remote_code" not in str(error.value)
    assert asked == []


@pytest.mark.usefixtures("light_registry")
def test_a_missing_data_set_is_named(toy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "load_model", None)  # it is known before the model is loaded
    (toy[1].parent / "data/toy_b").rename(toy[1].parent / "data/elsewhere")
    with pytest.raises(InheritError, match=r"toy_b of task toy_b is not in .*/data:[^`]*`hf download .*data/toy_b"):
        run_toy(toy)


def test_no_network_and_no_data(manager: TaskManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    (task,) = read_suite("low_data").only(["boolq"]).tasks
    config = task_config(task, manager, DataOptions())
    with pytest.raises(
        InheritError, match=r"data set aps/super_glue of task boolq(.|\n)*`hf download .*aps/super_glue"
    ):
        check_data(task, config, manager)


def test_a_data_sets_script_runs_only_if_trusted(
    manager: TaskManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A data set's repository may hold a script, which runs with the user's rights."""
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    for name in [name for name in sys.modules if name.split(".")[0] == "datasets_modules"]:
        monkeypatch.delitem(sys.modules, name)  # where datasets put scripts before
    (task,) = read_suite("low_data").only(["piqa"]).tasks
    (tmp_path / "baber/piqa").mkdir(parents=True)
    (tmp_path / "baber/piqa/piqa.py").write_text(
        f"import datasets\nimport pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "class Piqa(datasets.GeneratorBasedBuilder):\n    pass\n"
    )
    config = task_config(task, manager, DataOptions(tmp_path))
    with pytest.raises(InheritError, match="A script of its repository loads it, .* --trust_remote_code"):
        check_data(task, config, manager)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(InheritError) as error:  # the script is not a whole one
        check_data(task, task_config(task, manager, DataOptions(tmp_path, trust_remote_code=True)), manager)
    assert (tmp_path / "ran").exists(), str(error.value)


def test_errors_of_the_command(tmp_path: Path) -> None:
    tmp_path.joinpath("empty").mkdir()
    with pytest.raises(InheritError, match="holds no litGPT checkpoint: no lit_model.pth in it"):
        evaluate(str(tmp_path / "empty"))
    with pytest.raises(InheritError, match="No suite mine: expected one of gpt2, low_data, smoke, or a YAML file"):
        read_suite("mine")
    with pytest.raises(InheritError, match="has no task arc. Its tasks: wsc, piqa"):
        read_suite("low_data").only(["arc"])
    (tmp_path / "bad.yaml").write_text("tasks: {piqa: {metric: acc, num_fewshot: -1, version: 1}}")
    with pytest.raises(InheritError, match="piqa: num_fewshot is -1, expected 0 or more"):
        read_suite(str(tmp_path / "bad.yaml"))
