"""What a model costs: parameters, MACs, activation memory and measured latency."""

from saikei.costs.counting import (
    Counts,
    call_macs,
    check_countable,
    count_costs,
    uncounted_layers,
)
from saikei.costs.latency import measure_latency
from saikei.costs.profiling import LayerProfile, Profile, profile

__all__ = [
    "Counts",
    "LayerProfile",
    "Profile",
    "call_macs",
    "check_countable",
    "count_costs",
    "measure_latency",
    "profile",
    "uncounted_layers",
]
