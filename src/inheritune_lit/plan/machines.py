"""What a GPU can do at best, and what share of it training has been seen to use. Imports neither torch nor litGPT."""

import re
from dataclasses import dataclass

from inheritune_lit.base.errors import InheritError


@dataclass(frozen=True)
class Gpu:
    """Figures of NVIDIA's data sheets. Their headline tensor figures assume 2:4 sparsity: half of them is dense."""

    title: str
    memory_mib: int
    """What nvidia-smi calls its total"""
    peak_tflops: float
    """Dense bfloat16 with float32 accumulation, TFLOP/s"""
    source: str

    @property
    def memory(self) -> int:
        """Bytes"""
        return self.memory_mib * 2**20

    @property
    def peak_flops(self) -> float:
        """FLOP/s"""
        return self.peak_tflops * 1e12


_AMPERE_WHITEPAPER = "NVIDIA Ampere GA102 whitepaper"
GPUS = {
    "a6000": Gpu("RTX A6000", 49140, 154.8, "RTX A6000 data sheet: 309.7 with sparsity"),
    "a40": Gpu("A40", 46068, 149.7, "A40 data sheet: 299.4 with sparsity"),
    "a100-40": Gpu("A100 40GB", 40960, 312, "A100 data sheet"),
    "a100-80": Gpu("A100 80GB", 81920, 312, "A100 data sheet"),
    "h100": Gpu("H100 SXM", 81559, 989.4, "H100 data sheet: 1,979 with sparsity"),
    "h100-pcie": Gpu("H100 PCIe", 81559, 756, "H100 data sheet: 1,513 with sparsity"),
    "h200": Gpu("H200 SXM", 143771, 989.4, "H200 data sheet: 1,979 with sparsity"),
    "l40s": Gpu("L40S", 46068, 362, "L40S data sheet: 733 with sparsity"),
    "rtx3090": Gpu("GeForce RTX 3090", 24576, 71, _AMPERE_WHITEPAPER),
}

# Model FLOPs utilisation, as shares of the dense peak: around what was measured with litGPT's own loop and what was
# published for models of this size, several GPUs at the lower end, GPUs with fewer FLOPs for their memory at the upper.
MFU_LOW, MFU_HIGH = 0.40, 0.60
MFU_SOURCE = (
    "Measured: recipes/openllama3b_n13.yaml by litgpt pretrain on one H200, 46 % at micro-batch 2, 53 % at 8 "
    "(benchmarks/gpu.md). Published: MosaicML llm-foundry, MPT 1B and 3B at 2,048 tokens, bf16-mixed, 8 to 64 GPUs: "
    "41-44 % on H100, 60-62 % on A100 80GB. A run's own speed stands in its bar and in run.json"
)


def gpu_named(name: str) -> Gpu:
    """The GPU that `--gpu` names.

    Raises:
        InheritError: there is none of that name here.
    """
    if (key := name.lower()) not in GPUS:
        raise InheritError(f"--gpu {name}: not known here. Choose one of {', '.join(GPUS)}.")
    return GPUS[key]


def gpu_key(device: str) -> str | None:
    """What `--gpu` calls a GPU that its driver names `device`; None for one that is not known here."""
    name = device.lower().replace(" ", "-")
    memory = "a100-40" if "40gb" in name else "a100-80"
    variants = (
        *(("h100-pcie", "h100-pcie"), ("h100-nvl", None), ("h100", "h100"), ("h200-nvl", None), ("h200", "h200")),
        *(("a100", memory), ("rtx-a6000", "a6000"), ("a40", "a40"), ("l40s", "l40s"), ("rtx-3090", "rtx3090")),
    )
    return next((key for part, key in variants if re.search(rf"(?<![a-z0-9]){part}(?!-ti|[0-9a-z])", name)), None)


def peak_flops(device: str) -> float | None:
    """Dense bfloat16 FLOP/s of a GPU by the name that its driver gives; None for one that is not known here."""
    key = gpu_key(device)
    return GPUS[key].peak_flops if key else None
