"""The starts: where each tensor of a target comes from, and the Config it makes. RULES is the table of them.

Pure functions on names, shapes and Configs; `command` opens the files and writes the target. Importing this module
imports neither torch nor litGPT.

What isn't inherited in the three ablations is what `random` would hold with the same seed. They keep the source's
embeddings, final norm and head whichever part of the blocks they inherit: the paper asks what in a block is worth
inheriting, and a head behind a norm that it was not trained with reads noise.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from inheritune_lit import gpt2
from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.layers import BLOCK, inherited_names, parse_layers, slice_config
from inheritune_lit.surgery.half_width import halved_config
from inheritune_lit.surgery.origins import Origin, block_of, module_of

if TYPE_CHECKING:
    import torch
    from litgpt.config import Config

Start = Literal[
    "inherit",
    "random",
    "attention",
    "mlp",
    "attention+mlp",
    "stacking",
    "hybrid-stacking",
    "half-width",
    "last",
    "middle",
    "every-other",
    "grow",
]
Head = Literal["target", "source"]


@dataclass(frozen=True)
class Rule:
    """How a target starts: the blocks it has, what of them it inherits, what becomes of its Config."""

    note: str
    """What it is; N is the number that `--layers` says"""
    place: Callable[[int, int], Iterable[int]] | None = None
    """(N, blocks of the source) → the source's block for each of the target's; None takes `--layers` in any form"""
    numbers: Callable[[int, int], range] = lambda n_layer, trained: range(1, n_layer + 1)
    """(blocks of the source, of the trained target) → which N fit"""
    why: str = ""
    """Why only these, for the error"""
    most_by_default: bool = False
    """Without `--layers`, N is the largest that fits"""
    inherits: tuple[str, ...] | None = None
    """Modules of a block, and what is outside of the blocks; the rest is random. None is all"""
    stacks: bool = False
    """Blocks stand on themselves, as in an ordinary model of that depth"""
    halves: bool = False
    """Only the first half of the channels and heads is kept"""
    grows: bool = False
    """The first blocks, and what is outside of them, are a trained target's (`--target_dir`)"""

    @property
    def is_subset(self) -> bool:
        """The source with some blocks taken out, so that its logits are known."""
        return self.inherits is None and not (self.stacks or self.halves or self.grows)


RULES: dict[Start, Rule] = {
    "inherit": Rule("the blocks that --layers names"),
    "last": Rule("the source's last N blocks", lambda n, n_layer: range(n_layer - n, n_layer)),
    "middle": Rule("the source's middle N blocks", lambda n, n_layer: range((n_layer - n) // 2, (n_layer + n) // 2)),
    "every-other": Rule(
        "the source's blocks 0, 2, 4 …",
        lambda n, n_layer: range(0, 2 * n, 2),
        lambda n_layer, trained: range(1, (n_layer + 1) // 2 + 1),
        why=", of which every other is taken",
        most_by_default=True,
    ),
    "random": Rule("litGPT's own initialisation, of the shape that inherit would have", inherits=()),
    "attention": Rule(
        "attention and norms of the blocks, the rest of them random", inherits=("attn", "norm", "outside")
    ),
    "mlp": Rule("MLP and norms of the blocks, the rest of them random", inherits=("mlp", "norm", "outside")),
    "attention+mlp": Rule("attention and MLP of the blocks, their norms new", inherits=("attn", "mlp", "outside")),
    "stacking": Rule(
        "all blocks of a trained model of half the depth, twice",
        lambda n, n_layer: [*range(n_layer)] * 2,
        lambda n_layer, trained: range(2 * n_layer, 2 * n_layer + 1),
        why=", and all of them are stacked on themselves",
        most_by_default=True,
        stacks=True,
    ),
    "hybrid-stacking": Rule(
        "the source's first N/2 blocks, twice",
        lambda n, n_layer: [*range(n // 2)] * 2,
        lambda n_layer, trained: range(2, 2 * n_layer + 1, 2),
        why=", of which the first half of --layers is taken twice",
        stacks=True,
    ),
    "half-width": Rule("the blocks with half the channels and heads", most_by_default=True, halves=True),
    "grow": Rule(
        "a trained target and the source's next blocks, N in all",
        lambda n, n_layer: range(n),
        lambda n_layer, trained: range(trained + 1, n_layer + 1),
        why=", the trained target {trained}, and it takes the next ones",
        grows=True,
    ),
}


def choose_blocks(start: Start, layers: str | None, n_layer: int, *, trained: int = 0) -> list[int]:
    """For each block of the target, the number of the source's block that it comes from (or would, if it is random).

    Args:
        start: How the target starts.
        layers: `--layers`: for most starts any of its forms, for those with a rule of their own a number of blocks.
        n_layer: Blocks of the source.
        trained: Blocks of the trained target, for `grow`.

    Raises:
        InheritError: `layers` is missing or does not fit the start.
    """
    rule = RULES[start]
    numbers = rule.numbers(n_layer, trained)
    if layers is None and not rule.most_by_default:
        raise InheritError(
            f"--start {start} needs --layers, the blocks of the target. The source has {n_layer} blocks."
        )
    layers = str(numbers[-1] if layers is None else layers).strip()
    if rule.place is None:
        return parse_layers(layers, n_layer)
    if not layers.isdecimal():
        raise InheritError(f"--layers {layers}: --start {start} chooses the blocks itself, and takes a number of them.")
    if (count := int(layers)) not in numbers:
        even = "an even number " if numbers.step == 2 else ""
        many = f"{even}{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else ""
        expected = many or (str(numbers[0]) if numbers else "none possible")
        raise InheritError(
            f"--layers {count} does not fit --start {start}: expected {expected}. The source has {n_layer} blocks"
            f"{rule.why.format(trained=trained)}."
        )
    return list(rule.place(count, n_layer))


def start_config(start: Start, config: "Config", blocks: Sequence[int]) -> "Config":
    """litGPT's Config of the target.

    Raises:
        InheritError: litGPT can't describe these blocks, or a width can't be halved.
    """
    config = slice_config(config, blocks)
    if RULES[start].stacks:  # an ordinary model of n blocks: each scales by its new position
        options = {key: value for key, value in config.hf_config.items() if key != "layer_idx"}
        return replace(config, hf_config=options)
    return halved_config(config) if RULES[start].halves else config


def origins(
    start: Start,
    names: Iterable[str],
    blocks: Sequence[int],
    *,
    trained: int = 0,
    head: Head = "target",
    tied: bool = False,
) -> dict[str, Origin]:
    """Target tensor name → where it comes from, whole.

    Args:
        start: How the target starts.
        names: The source's tensors.
        blocks: What `choose_blocks` said.
        trained: Blocks of the trained target, for `grow`.
        head: Whose final norm and head a grown target gets.
        tied: The source's head is its token embedding, which then goes with the head.
    """
    rule = RULES[start]
    of_source = ("lm_head.", "transformer.ln_f.", *(["transformer.wte."] if tied else [])) if head == "source" else ()

    def origin(target: str, source: str) -> Origin:
        in_block = target.startswith(BLOCK)
        if rule.inherits is not None and (module_of(target) if in_block else "outside") not in rule.inherits:
            return Origin("random", target)
        of_trained = block_of(target) < trained if in_block else not target.startswith(of_source)
        return Origin("target" if rule.grows and of_trained else "source", source)

    return {target: origin(target, source) for target, source in inherited_names(names, blocks).items()}


def random_state(config: "Config", seed: int) -> "dict[str, torch.Tensor]":
    """The weights that `litgpt pretrain --seed SEED` starts from on one CPU device: float32, the same to the bit.

    On a GPU, litGPT draws them with the GPU's own generator: the same distribution, other numbers.
    """
    import torch
    from lightning.fabric import Fabric, plugins

    from inheritune_lit.gpt2.install import initialize_weights

    fabric = Fabric(accelerator="cpu", devices=1, plugins=plugins.environments.LightningEnvironment())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with fabric.init_module(empty_init=True):
            model = gpt2.build(config)
        initialize_weights(fabric, model, n_layer=config.n_layer, n_embd=config.n_embd)
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}
