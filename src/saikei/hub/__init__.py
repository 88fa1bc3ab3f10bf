"""KerasHub's models: what is cut from one is one again, with a smaller config."""

from saikei.hub.family import Family, as_family, as_family_or_plain, family_of

__all__ = ["Family", "as_family", "as_family_or_plain", "family_of"]
