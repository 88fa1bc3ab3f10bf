"""What a model costs: parameters, MACs, bytes, activation memory and measured latency."""

from saikei.costs.counting import (
    Counts,
    call_macs,
    check_countable,
    count_costs,
    peak_bytes,
    uncounted_layers,
)
from saikei.costs.latency import measure_latency
from saikei.costs.machine import machine
from saikei.costs.profiling import LayerProfile, Profile, profile

__all__ = [
    "Counts",
    "LayerProfile",
    "Profile",
    "call_macs",
    "check_countable",
    "count_costs",
    "machine",
    "measure_latency",
    "peak_bytes",
    "profile",
    "uncounted_layers",
]
