"""How pytest-xdist spreads the files over its processes, so that one Java is enough for two of them."""

from xdist.scheduler.loadscope import LoadScopeScheduling
from xdist.workermanage import WorkerController


class FromBothEnds(LoadScopeScheduling):
    """Whole files: the first process takes them from the front of the collection, the others from its end.

    Files that need Spark come first in it (tests/conftest.py). A process that is done with its kind of files takes the
    other kind: a second Java starts only where it saves time.
    """

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.split("::", 1)[0]

    def _assign_work_unit(self, node: WorkerController) -> None:
        if node is not self.nodes[0]:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)
