"""Classes that come one task after another: a sequence of tasks, the methods that learn it, and what stays of it.

from vpt.continual import Protocol, run_protocol
run_protocol(Protocol(data=("caltech101",), tasks=5, methods=("ncm", "ranpac", "coda")), "runs/continual")
"""

from vpt.continual.gradient_free import NearestMean, RanPac
from vpt.continual.protocol import Protocol, load_protocol
from vpt.continual.running import run_protocol
from vpt.continual.tasks import Task, make_tasks

__all__ = ["NearestMean", "Protocol", "RanPac", "Task", "load_protocol", "make_tasks", "run_protocol"]
