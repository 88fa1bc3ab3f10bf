"""Whether members mean the same: what their shapes and activations cannot tell, data can."""

from saikei.fusion.agreement.check import check_agreement

__all__ = ["check_agreement"]
