"""Published figures of accelerators, and what a run would take on one of them: always a range."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unipref.core.errors import ConfigError, nearest

__all__ = ["DEVICES", "Device", "find_device"]

GB = 1e9

# Share of the vendor's peak that training reaches in its matrix products. 45 % is what large, well-fed models
# are reported to reach (arXiv:2204.02311, section 4.1: 46 %); at the widths and step sizes of fine-tuning half of that.
SHARE = (0.15, 0.45)
# Seconds per block and pass that launching kernels takes, however small the model: about 15 to 40 launches of 5 to
# 10 microseconds, where nothing is compiled.
LAUNCH = (1e-4, 4e-4)
BANDWIDTH_SHARE = (0.5, 0.85)  # of the vendor's bandwidth, that reading all weights once reaches
CONTEXT = 0.6 * GB  # what the driver and the libraries take before the first tensor
LOST = (1.02, 1.15)  # reserved by the allocator over what is in use


@dataclass(frozen=True)
class Device:
    """A vendor's figures: GB of 1e9 bytes, dense TFLOP/s without sparsity, GB/s.

    Attributes:
        bf16: matrix products in bfloat16 with float32 sums; None where the device has none, so that training is in
            float32.
        fp32: products in float32 outside of the matrix units, as torch makes them by default.
    """

    name: str
    memory: float
    bf16: float | None
    fp32: float
    bandwidth: float

    def peak(self, precision: str) -> tuple[str, float]:
        """The precision that the recipe's word asks for here, and its operations per second."""
        if precision == "float32" or self.bf16 is None:
            return "float32", self.fp32 * 1e12
        return "bfloat16", self.bf16 * 1e12


DEVICES = {
    device.name: device
    for device in (
        Device("A10G", 24, 70, 35, 600),
        Device("A100-40", 40, 312, 19.5, 1555),
        Device("A100-80", 80, 312, 19.5, 2039),
        Device("H100", 80, 989, 67, 3350),
        Device("H200", 141, 989, 67, 4800),
        Device("L4", 24, 121, 30.3, 300),
        Device("L40S", 48, 362, 91.6, 864),
        Device("RTX-3090", 24, 71, 35.6, 936),
        Device("RTX-4090", 24, 165, 82.6, 1008),
        Device("RTX-5090", 32, 209, 104.8, 1792),
        Device("T4", 16, None, 8.1, 320),
    )
}


def find_device(name: str) -> Device:
    """The device called `name`; case, spaces, hyphens and underscores do not count.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    plain = {_plain(known): device for known, device in DEVICES.items()}
    if _plain(name) in plain:
        return plain[_plain(name)]
    if _plain(name) in ("m1", "m2", "m3", "m4", "m5", "mps", "apple"):
        raise ConfigError(
            f"no device named {name!r}: on an Apple machine unipref trains on the CPU, as exact sums need float64; "
            "run --dry-run there, without --device"
        )
    close = nearest(_plain(name), plain)
    for short, device in plain.items():
        close = close.replace(repr(short), repr(device.name))
    raise ConfigError(f"no device named {name!r}{close}. Known: {', '.join(DEVICES)}")


def _plain(name: str) -> str:
    return "".join(name.lower().split()).replace("-", "").replace("_", "")


def on_device(device: Device, needs: "DeviceNeeds") -> dict[str, Any]:
    """What `needs` take on `device`, as [low, high] seconds and bytes, with the assumptions.

    Training is bound by arithmetic or by launching kernels, whatever is longer; an update reads and writes the
    weights, their gradients and the optimiser's numbers; drawing a token reads the weights once.
    """
    precision, peak = device.peak(needs.precision)
    half = precision == "bfloat16"
    low, high = [], []
    for bound, share, launch, band in (
        (low, SHARE[1], LAUNCH[0], BANDWIDTH_SHARE[1]),
        (high, SHARE[0], LAUNCH[1], BANDWIDTH_SHARE[0]),
    ):
        launches = launch * needs.blocks
        bandwidth = device.bandwidth * GB * band
        compute = max(needs.train_flops / (peak * share), needs.train_passes * launches)
        forward = max(needs.forward_flops / (peak * share), needs.forward_passes * launches)
        update = needs.updates * needs.update_bytes / bandwidth
        draw = needs.drawn_tokens * max(needs.weights * (2 if half else 4) / bandwidth, launches)
        bound += [compute + update, forward, draw]
    activations = needs.activations
    least = needs.state_bytes + (0.5 if half else 1.0) * activations
    memory = [CONTEXT + least * LOST[0], CONTEXT + (needs.state_bytes + activations) * LOST[1]]
    return {
        "name": device.name,
        "precision": precision,
        "vendor": {
            "memory": device.memory * GB,
            "peak_flops": peak,
            "bandwidth": device.bandwidth * GB,
        },
        "assumed": {"share_of_peak": list(SHARE), "share_of_bandwidth": list(BANDWIDTH_SHARE)},
        "seconds": {
            "training": [low[0], high[0]],
            "scoring": [low[1], high[1]],
            "sampling": [low[2], high[2]],
            "total": [sum(low) + needs.elsewhere, sum(high) + needs.elsewhere],
        },
        "memory": memory,
        "fits": "yes" if memory[1] <= device.memory * GB else "no" if memory[0] > device.memory * GB else "perhaps",
    }


@dataclass(frozen=True)
class DeviceNeeds:
    """What a run asks of a device.

    Attributes:
        train_flops, forward_flops: of steps, and of forwards alone.
        train_passes, forward_passes: forwards of either, a backward counted as two.
        updates, update_bytes: optimiser steps, and what one reads and writes.
        drawn_tokens: decoding steps, of whole batches.
        weights, blocks: of the model.
        state_bytes: weights, gradients, optimiser and live references together, at the largest stage.
        activations: kept for the backward pass by the largest forward, in float32.
        elsewhere: seconds that no accelerator changes (reading, encoding, writing, the report), as measured here.
        precision: the recipe's word.
    """

    train_flops: float
    forward_flops: float
    train_passes: float
    forward_passes: float
    updates: int
    update_bytes: float
    drawn_tokens: int
    weights: int
    blocks: int
    state_bytes: float
    activations: float
    elsewhere: float
    precision: str


def assumptions() -> Mapping[str, Any]:
    """The assumed shares, for those who print them."""
    return {"share_of_peak": SHARE, "share_of_bandwidth": BANDWIDTH_SHARE, "launch_seconds": LAUNCH}
