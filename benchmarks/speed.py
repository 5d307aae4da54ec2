"""Is a network of half the width faster by what its multiply-accumulates say?

ResNet-50 and ViT-tiny at 50 % of every group, on the CPU: dense time / pruned time against dense
MACs / pruned MACs. Both networks are timed in turn, pass by pass, and the medians are compared, so
that a busy machine disturbs as little as may be. Where less than 0.8 of the expected factor
arrives, a profile says which operators the pruned network's time goes to.
"""

from __future__ import annotations

import torch
from tests.timm_support import name_missing_operators
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import bequest
from benchmarks.record import record
from bequest.measure.latency import latencies

WANTED = 0.8
REPEATS = 25
SEED = 0


def main() -> None:
    """Prunes both networks and times them at two batch sizes."""
    torch.set_num_threads(2)
    torch.manual_seed(SEED)
    name_missing_operators()
    import timm

    networks = {
        "ResNet-50": bequest.zoo.create("resnet50").eval(),
        "ViT-tiny": timm.create_model("vit_tiny_patch16_224").eval(),
    }
    rows: list[list[object]] = []
    for name, dense in networks.items():
        example = torch.zeros(1, 3, 224, 224)
        pruned = bequest.prune(dense, example, 0.5, groups="all", restorer="none", progress=False)
        expected = pruned.report.before.macs / pruned.report.after.macs
        for batch in (1, 8):
            inputs = torch.randn(batch, 3, 224, 224)
            both = latencies([dense, pruned.model], inputs, repeats=REPEATS, warmup=3)
            before, after = (found.median for found in both)
            reached = before / after / expected
            note = "" if reached >= WANTED else _profile(pruned.model, inputs)
            figures = (expected, before, after, before / after, reached)
            rows.append([name, batch, *(round(value, 2) for value in figures), note])
            print(*rows[-1], flush=True)
    record(
        "speed",
        rows,
        [
            "network",
            "batch",
            "MACs, dense / pruned",
            "dense (ms)",
            "pruned (ms)",
            "time, dense / pruned",
            f"reached (wanted {WANTED})",
            "where the pruned network's time goes",
        ],
        ratio="0.5 of every group, residual streams too, widths are multiples of 8",
        timing=f"medians of {REPEATS} passes of each network, in turn",
        threads=2,
        seed=SEED,
    )


def _profile(model: nn.Module, inputs: Tensor) -> str:
    """The four operators that take most of the time, with their shares."""
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(5):
            model(inputs)
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in events)
    shares = (f"{event.key} {event.self_cpu_time_total / whole:.0%}" for event in events[:4])
    return ", ".join(shares)


if __name__ == "__main__":
    main()
