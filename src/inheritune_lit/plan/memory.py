"""Memory of one GPU: in use at the peak, when a backward pass begins, and what nvidia-smi will show on a roomy card.

The second is more, as torch's allocator keeps what is freed, in blocks of the size that they were asked for. Here that
is mainly one more set of gradients: a compiled backward pass returns them all at once, and an activation's block is too
small for the gradient of a matrix. A card short of memory still runs: the allocator then gives blocks back. An
optimizer's step adds nothing: on a GPU litGPT takes AdamW's fused form, whatever the recipe says, which works in place.
"""

from dataclasses import asdict, dataclass

from inheritune_lit.plan.model import Parameters, Saved

# Measured by benchmarks/plan_memory.py (0.699, torch 2.13): what torch.compile's partitioner keeps of a LLaMA block's
# activations; it computes the others anew. The loss is outside of what litGPT compiles.
COMPILED_SHARE = 0.70
CONTEXT = 6 * 2**30 // 10  # bytes of CUDA's context, kernels and cuBLAS' workspace: 0.5 to 0.8 GiB on these cards
ROUNDING = 0.02  # the allocator asks the driver for whole 2 MiB: 0.5 to 4 % of the blocks of a model of 1B parameters
OPTIMIZER_STATES = {"AdamW": 2, "Adam": 2, "SGD": 1}  # values beside each weight; others are taken to have two


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the peak."""

    weights: int
    gradients: int
    optimizer: int
    copies: int
    """bfloat16 weights: what autocast converted, or what FSDP has gathered"""
    activations: int
    logits: int
    """Logits, their log-softmax or the teacher's logits, and their gradient, with the head's own gradient"""
    kept: int
    """Blocks that are free at the peak and stay the allocator's, and what it rounds up"""
    teacher: int = 0
    """Its weights, in bfloat16"""
    context: int = CONTEXT

    @property
    def in_use(self) -> int:
        """What torch.cuda.max_memory_allocated() will say."""
        return self.total - self.kept - self.context

    @property
    def total(self) -> int:
        """What nvidia-smi will show."""
        return sum(asdict(self).values())

    def as_json(self) -> dict[str, int]:
        return asdict(self) | {"in_use": self.in_use, "total": self.total}


@dataclass(frozen=True)
class Run:
    """What of a run decides about its memory."""

    parameters: Parameters
    saved: Saved
    vocabulary: int
    sequence: int
    precision: str
    optimizer_states: int
    shards: int = 1
    """GPUs that hold one copy of the training state between them: those of a node, as litGPT uses HYBRID_SHARD"""
    compiled: bool = True
    teacher: int = 0
    """Parameters of the model that it learns from, all of them on each GPU"""

    @property
    def mixed(self) -> bool:
        return self.precision == "bf16-mixed"

    @property
    def value(self) -> int:
        """Bytes of a weight"""
        return 2 if self.precision == "bf16-true" else 4


def peak(run: Run, micro_batch: int, *, accumulates: bool) -> Memory:
    """Memory at the peak of a step that is not the first, whose optimizer states do not exist yet.

    Args:
        run: The model and how it is trained.
        micro_batch: Sequences.
        accumulates: Whether a step has several micro-batches: then the gradients of the earlier ones are alive too.
    """
    total, value, shards = run.parameters.total, run.value, run.shards
    share = COMPILED_SHARE if run.compiled else 1.0
    activations = int(micro_batch * run.saved.per_sequence * share)
    logits = _logits(run, micro_batch)
    gradients = total * value // shards
    copies = run.saved.once
    if shards > 1:
        low = 2 if run.precision != "32-true" else 4  # Fabric has FSDP gather weights and keep gradients in bfloat16
        copies = low * (run.parameters.outside + 2 * run.parameters.block)  # the root stays, one block is fetched ahead
        if accumulates:  # litGPT holds synchronisation back until the last micro-batch: whole gradients till then
            gradients += low * total
    kept = _kept(run, micro_batch, gradients, accumulates=accumulates)
    if not accumulates and activations + logits + copies > gradients:
        gradients = 0  # they come to be as the activations go
    elif not accumulates:
        kept = activations + logits + copies
        activations = logits = copies = 0  # the peak is the optimizer's step
    weights, states = total * value // shards, total * value * run.optimizer_states // shards
    teacher = 2 * run.teacher
    kept += int(ROUNDING * (weights + gradients + states + copies + activations + logits + kept + teacher))
    return Memory(weights, gradients, states, copies, activations, logits, kept, teacher)


def _kept(run: Run, micro_batch: int, gradients: int, *, accumulates: bool) -> int:
    """Bytes of a backward pass's gradients for which no block is large enough but those of the logits' gradients."""
    at_once = gradients if not accumulates or (run.compiled and run.shards == 1) else 0  # FSDP's come block by block
    freed = (run.value + (2 if run.mixed else 0)) * micro_batch * run.sequence * run.vocabulary
    return max(0, at_once - freed)


def _logits(run: Run, micro_batch: int) -> int:
    """Fabric returns float32 logits under bf16-mixed; litGPT's loss takes them in chunks but holds them all.

    First logits, log-softmax and the chunks' gradients; then, as these are joined: logits, chunks, joined gradient.
    Then the head's backward pass: logits, gradient, its bfloat16 copy, and the weight's gradient in both types.
    """
    values = micro_batch * run.sequence * run.vocabulary
    low = 2 if run.mixed else 0
    loss = (
        2 * run.value + 2 if run.teacher else 3 * run.value
    ) * values  # logits, their gradient, the teacher's logits
    head = (2 * run.value + low) * values + (run.value + low) * run.parameters.largest
    return max(loss, head)


def largest_micro_batch(run: Run, per_device: int, memory_bytes: int) -> int | None:
    """The largest divisor of `per_device` (the sequences a device takes in a step) that fits, kept blocks included."""
    for micro_batch in range(per_device, 0, -1):
        if per_device % micro_batch:
            continue
        if peak(run, micro_batch, accumulates=micro_batch < per_device).total <= memory_bytes:
            return micro_batch
    return None
