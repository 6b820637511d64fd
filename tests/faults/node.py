"""A second node of a cluster whose head listens on loopback alone, with one CPU; the argument is the head's address.

`ray start` refuses to join such a head; `ray.cluster_utils.Cluster` joins one as this does.
"""

import signal
import sys

from ray._private.node import Node
from ray._private.parameter import RayParams

if __name__ == "__main__":
    parameters = RayParams(
        gcs_address=sys.argv[1],
        node_ip_address="127.0.0.1",
        num_cpus=1,
        num_gpus=0,
        min_worker_port=0,
        max_worker_port=0,
        dashboard_agent_listen_port=0,
    )
    Node(parameters, head=False, shutdown_at_exit=True, spawn_reaper=False)
    signal.pause()
