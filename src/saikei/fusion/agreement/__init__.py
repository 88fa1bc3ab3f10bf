"""Whether members have classes in one order and expect the same preprocessing, by data."""

from saikei.fusion.agreement.check import check_agreement

__all__ = ["check_agreement"]
