"""What the controller's passes come to, as metrics."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from service import metrics
from service.cluster.lease import NotLeader
from service.errors import ClusterUnreachable
from service.store.engine import DatabaseError


class PassWatch:
    """Times passes of the controller, and counts the times that the database was away during one and not before."""

    def __init__(self) -> None:
        self._database_away = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """A pass, which ends with the block, and may raise out of it."""
        began, result = time.monotonic(), "error"
        try:
            yield
            result, self._database_away = "done", False
        except NotLeader:
            result = "done"  # another service has taken over, so this one is done
            raise
        except ClusterUnreachable:
            result = "ray_unreachable"
            raise
        except DatabaseError:
            if not self._database_away:
                metrics.DATABASE_OUTAGES.inc()
            self._database_away = True
            raise
        finally:
            metrics.PASS_SECONDS.labels(result).observe(time.monotonic() - began)
