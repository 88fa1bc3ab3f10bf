"""The search: everything that Saikei can do to a model, tried under one budget."""

from saikei.runs import Candidate, Run
from saikei.search.optimize import optimize
from saikei.search.result import Front, Result

__all__ = ["Candidate", "Front", "Result", "Run", "optimize"]
