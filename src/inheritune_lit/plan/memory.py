"""Memory of one GPU at its peak: the start of a backward pass, when all of a micro-batch's activations are alive."""

from dataclasses import asdict, dataclass

from inheritune_lit.plan.model import Parameters, Saved

# Measured by benchmarks/plan_memory.py (0.699, torch 2.13): what torch.compile's partitioner keeps of a LLaMA block's
# activations; it computes the others anew. The loss is outside of what litGPT compiles.
COMPILED_SHARE = 0.70
RESERVE = 2 * 2**30  # bytes for the CUDA context, cuBLAS' workspace and fragmentation: ours, not measured
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
    """Logits, their log-softmax and their gradient, with the head's own gradient"""

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


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
    kept = COMPILED_SHARE if run.compiled else 1.0
    activations = int(micro_batch * run.saved.per_sequence * kept)
    logits = _logits(run, micro_batch)
    gradients = total * value // shards
    copies = run.saved.once
    if shards > 1:
        low = 2 if run.precision != "32-true" else 4  # Fabric has FSDP gather weights and keep gradients in bfloat16
        copies = low * (run.parameters.outside + 2 * run.parameters.block)  # the root stays, one block is fetched ahead
        if accumulates:  # litGPT holds synchronisation back until the last micro-batch: whole gradients till then
            gradients += low * total
    if not accumulates and activations + logits + copies > gradients:
        gradients = 0  # they come to be as the activations go
    elif not accumulates:
        activations = logits = copies = 0  # the peak is the optimizer's step
    return Memory(
        weights=total * value // shards,
        gradients=gradients,
        optimizer=total * value * run.optimizer_states // shards,
        copies=copies,
        activations=activations,
        logits=logits,
    )


def _logits(run: Run, micro_batch: int) -> int:
    """Fabric returns float32 logits under bf16-mixed; litGPT's loss takes them in chunks but holds them all.

    First logits, log-softmax and the chunks' gradients; then, as these are joined: logits, chunks, joined gradient.
    Then the head's backward pass: logits, gradient, its bfloat16 copy, and the weight's gradient in both types.
    """
    values = micro_batch * run.sequence * run.vocabulary
    low = 2 if run.mixed else 0
    loss = 3 * run.value * values
    head = (2 * run.value + low) * values + (run.value + low) * run.parameters.largest
    return max(loss, head)


def largest_micro_batch(run: Run, per_device: int, memory_bytes: int) -> int | None:
    """The largest divisor of `per_device` (the sequences a device takes in a step) that fits; None if not even 1."""
    for micro_batch in range(per_device, 0, -1):
        if per_device % micro_batch:
            continue
        if peak(run, micro_batch, accumulates=micro_batch < per_device).total + RESERVE <= memory_bytes:
            return micro_batch
    return None
