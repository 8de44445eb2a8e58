"""How a deployment is set up, looked over: facts are gathered, rules judge them, findings say what to put right.

It changes nothing, anywhere, and no finding holds a password.
"""

from bridge_tasks.checking.findings import Finding, Severity
from bridge_tasks.checking.rules import RULES, found, stopping

__all__ = ["RULES", "Finding", "Severity", "found", "stopping"]
