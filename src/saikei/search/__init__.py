"""The search: prune, train and average models within one budget, and choose the best."""

from saikei.runs import Candidate, Run
from saikei.search.optimize import optimize
from saikei.search.result import Front, Result

__all__ = ["Candidate", "Front", "Result", "Run", "optimize"]
