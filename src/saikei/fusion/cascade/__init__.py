"""`Cascade`: later members run only on the rows that earlier ones are unsure of."""

from saikei.fusion.cascade.cascade import Cascade

__all__ = ["Cascade"]
