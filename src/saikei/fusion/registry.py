"""The fusions by name, for the command line and for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from saikei.fusion.average import Average
from saikei.fusion.base import Fusion
from saikei.fusion.best_member import BestMember
from saikei.fusion.boost import Boost
from saikei.fusion.cascade import Cascade
from saikei.fusion.chain import Chain
from saikei.fusion.multimodal import Multimodal
from saikei.fusion.soup import Soup
from saikei.fusion.stack import Stack

FUSIONS: Mapping[str, type[Fusion]] = MappingProxyType(
    {
        "Average": Average,
        "BestMember": BestMember,
        "Boost": Boost,
        "Cascade": Cascade,
        "Chain": Chain,
        "Multimodal": Multimodal,
        "Soup": Soup,
        "Stack": Stack,
    }
)
