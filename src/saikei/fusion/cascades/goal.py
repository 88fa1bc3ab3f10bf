"""What a cascade is to keep, as a mean over rows that must not be below 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from saikei.fusion.cascades.front import Policy
from saikei.fusion.cascades.trial import Trial


@dataclass(frozen=True)
class Goal:
    """A bound on accuracy from below, or on the mean cost from above.

    Args:
        kind: `"share"` of the last member's accuracy, `"accuracy"`, or `"cost"` in units of the
            last member's.
        bound: the number.
    """

    kind: Literal["share", "accuracy", "cost"]
    bound: float

    def margins(self, policy: Policy, trial: Trial) -> np.ndarray:
        """For each row by how much it is on the right side of the goal, `(n,)`.

        A row that counts less is nearer to it.
        """
        return self._of_each(policy, trial) * trial.counts

    def _of_each(self, policy: Policy, trial: Trial) -> np.ndarray:
        if self.kind == "cost":
            return np.asarray(self.bound - trial.spent(policy.thresholds))
        rights = trial.rights(policy.thresholds).astype(float)
        if self.kind == "accuracy":
            return np.asarray(rights - self.bound)
        return np.asarray(rights - self.bound * trial.last_right)

    def lowest(self, trial: Trial) -> float:
        """The lowest margin that a row can have."""
        if self.kind == "cost":
            return min(self.bound - float(trial.costs[-1]), -1e-9)
        return -self.bound

    def path(self, policies: list[Policy]) -> list[Policy]:
        """The policies from the safest on: the dearest for accuracy, the cheapest for cost."""
        return policies if self.kind == "cost" else policies[::-1]

    def met(self, path: list[Policy], trial: Trial) -> Policy | None:
        """The last policy of a path that keeps the goal on these rows, taken at their word."""
        kept = None
        for policy in path:
            # Sums of as many decimals as there are rows.
            if self.margins(policy, trial).mean() >= -1e-12:
                kept = policy
        return kept

    def __str__(self) -> str:
        if self.kind == "cost":
            return f"a mean cost of {self.bound:g} of the last member's"
        if self.kind == "accuracy":
            return f"an accuracy of {self.bound:g}"
        return f"{self.bound:g} of the last member's accuracy"
