"""A few real questions in the schema of each of the paper's ten data sets, as folders that copy their repositories."""

from pathlib import Path
from typing import Any

import yaml
from datasets import ClassLabel, Dataset, Features, Sequence, Value

TEXT, INT = Value("string"), Value("int32")
NO_YES = ClassLabel(names=["False", "True"])
CHOICES = {"choices": Sequence(TEXT), "labels": Sequence(INT)}
SUBJECTS = ("anatomy", "astronomy", "world_religions", "sociology")

# repository → configuration → (schema, split that is asked, rows); "" is a data set without configurations
DATA: dict[str, dict[str, tuple[dict[str, Any], str, list[dict[str, Any]]]]] = {
    "baber/piqa": {
        "": (
            {"goal": TEXT, "sol1": TEXT, "sol2": TEXT, "label": ClassLabel(names=["0", "1"])},
            "validation",
            [
                {
                    "goal": "To boil an egg,",
                    "sol1": "put it in hot water.",
                    "sol2": "put it in the fridge.",
                    "label": 0,
                },
                {"goal": "Dry wet shoes", "sol1": "in a bucket of water.", "sol2": "with newspaper.", "label": 1},
                {"goal": "Sharpen a pencil", "sol1": "with a small knife.", "sol2": "with a spoon.", "label": 0},
                {"goal": "Open a jar:", "sol1": "push the lid down.", "sol2": "turn the lid to the left.", "label": 1},
            ],
        )
    },
    "aps/super_glue": {
        "boolq": (
            {"question": TEXT, "passage": TEXT, "idx": INT, "label": NO_YES},
            "validation",
            [
                {"question": "is the moon a star", "passage": "The Moon orbits the Earth.", "idx": 0, "label": 0},
                {"question": "is ice lighter than water", "passage": "Ice floats on water.", "idx": 1, "label": 1},
                {"question": "do whales lay eggs", "passage": "Whales are mammals.", "idx": 2, "label": 0},
                {"question": "does iron rust", "passage": "Iron and oxygen form rust.", "idx": 3, "label": 1},
            ],
        ),
        "wsc.fixed": (
            {
                **{"text": TEXT, "span1_index": INT, "span2_index": INT, "span1_text": TEXT, "span2_text": TEXT},
                **{"idx": INT, "label": NO_YES},
            },
            "validation",
            [
                {
                    **{"text": "The cup fell off the shelf because it was slippery.", "span1_index": 1, "idx": i},
                    **{"span1_text": noun, "span2_index": 7, "span2_text": "it", "label": label},
                }
                for i, (noun, label) in enumerate([("The cup", 0), ("the shelf", 1), ("the cup", 0), ("The shelf", 1)])
            ],
        ),
    },
    "allenai/winogrande": {
        "winogrande_xl": (
            {"sentence": TEXT, "option1": TEXT, "option2": TEXT, "answer": TEXT},
            "validation",
            [
                {
                    "sentence": f"The ball broke the {a} because the _ was {b}.",
                    "option1": "ball",
                    "option2": a,
                    "answer": c,
                }
                for a, b, c in [
                    ("vase", "heavy", "1"),
                    ("window", "thin", "2"),
                    ("plate", "hard", "1"),
                    ("lamp", "frail", "2"),
                ]
            ],
        )
    },
    "EleutherAI/logiqa": {
        "logiqa": (
            {"label": TEXT, "context": TEXT, "question": TEXT, "options": Sequence(TEXT)},
            "test",
            [
                {
                    "label": label,
                    "context": f"All {these} are {those}. No {those} are green.",
                    "question": "Which follows?",
                    "options": [f"No {these} are green.", f"All {those} are {these}.", "Some are green.", "None."],
                }
                for these, those, label in [("crows", "birds", "a"), ("cats", "animals", "a"), ("oaks", "trees", "a")]
            ],
        )
    },
    "truthfulqa/truthful_qa": {
        "multiple_choice": (
            {"question": TEXT, "mc1_targets": CHOICES, "mc2_targets": CHOICES},
            "validation",
            [
                {
                    "question": question,
                    "mc1_targets": {"choices": [right, wrong], "labels": [1, 0]},
                    "mc2_targets": {"choices": [right, f"As a rule, {right}", wrong], "labels": [1, 1, 0]},
                }
                for question, right, wrong in [
                    ("Can you see the Great Wall from the Moon?", "You can't.", "You can."),
                    ("Do goldfish forget in seconds?", "They remember for months.", "They forget at once."),
                    ("What do bulls hate about red?", "Bulls can't tell red.", "Red makes bulls angry."),
                ]
            ],
        )
    },
    "nyu-mll/glue": {
        "mnli": (
            {
                **{"premise": TEXT, "hypothesis": TEXT, "idx": INT},
                "label": ClassLabel(names=["entailment", "neutral", "contradiction"]),
            },
            "validation_matched",
            [
                {"premise": "She sings in the rain", "hypothesis": hypothesis, "label": label, "idx": label}
                for label, hypothesis in enumerate(["Somebody sings.", "She is happy", "She says nothing."])
            ],
        ),
        "qnli": (
            {
                **{"question": TEXT, "sentence": TEXT, "idx": INT},
                "label": ClassLabel(names=["entailment", "not_entailment"]),
            },
            "validation",
            [
                {"question": "When did the war end?", "sentence": sentence, "label": label, "idx": i}
                for i, (sentence, label) in enumerate(
                    [("It ended in 1648.", 0), ("It was long.", 1), ("In May it was over.", 0), ("Many died.", 1)]
                )
            ],
        ),
        "wnli": (
            {
                **{"sentence1": TEXT, "sentence2": TEXT, "idx": INT},
                "label": ClassLabel(names=["not_entailment", "entailment"]),
            },
            "validation",
            [
                {"sentence1": "Ann thanked Eve for her help.", "sentence2": f"{name} helped.", "label": label, "idx": i}
                for i, (name, label) in enumerate([("Ann", 0), ("Eve", 1), ("She, Ann,", 0)])
            ],
        ),
    },
    "cais/mmlu": {
        subject: (
            {
                **{"question": TEXT, "subject": TEXT, "choices": Sequence(TEXT)},
                "answer": ClassLabel(names=["A", "B", "C", "D"]),
            },
            "test",
            [
                {
                    "question": f"What is {a} + {i}, asks a student of {subject.replace('_', ' ')}?",
                    "subject": subject,
                    "choices": [str(a + i + d) for d in ((a + k) % 4 for k in range(4))],
                    "answer": -a % 4,
                }
                for i in range(2)
                for a in range(3, 8)
            ],
        )
        for subject in SUBJECTS
    },
}


def write_data(folder: Path) -> Path:
    """Writes all of them: Parquet files, and the README.md whose front matter names configurations and splits."""
    for repository, configs in DATA.items():
        entries = []
        for config, (schema, split, rows) in configs.items():
            data = Dataset.from_list(rows, Features(schema))
            splits = {split: data, "train": data}
            if "mmlu" in repository:  # solved examples that are none of the questions, as in the real one
                examples = [row | {"question": row["question"].replace("What is", "How much is")} for row in rows[:5]]
                splits["dev"] = Dataset.from_list(examples, Features(schema))
            place = config or "data"
            for name, part in splits.items():
                (folder / repository / place).mkdir(parents=True, exist_ok=True)
                part.to_parquet(folder / repository / place / f"{name}-00000-of-00001.parquet")
            files = [{"split": name, "path": f"{place}/{name}-*"} for name in splits]
            entries.append({"config_name": config or "default", "data_files": files})
        (folder / repository / "README.md").write_text(f"---\n{yaml.dump({'configs': entries})}---\n")
    return folder
