"""`Multimodal`: members with different inputs, of which some may be missing."""

from saikei.fusion.multimodal.multimodal import Multimodal, MultimodalFit

__all__ = ["Multimodal", "MultimodalFit"]
