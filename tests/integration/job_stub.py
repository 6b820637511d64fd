"""What the tests of the cluster submit in place of `workers.job`. It does what its job id says."""

import os
import signal
import sys
import time
from pathlib import Path


def main(job_id: str) -> None:
    print(f"{job_id} runs in {sys.executable}, GREETING={os.environ.get('GREETING')}")
    match job_id:
        case "succeeds-when-told":
            while not Path(os.environ["TOLD"]).exists():
                time.sleep(0.05)
        case "fails":
            sys.exit("the dataset is missing")
        case "waits":
            signal.pause()
        case "uses-ray":
            import ray

            @ray.remote
            class Worker:
                def told(self) -> tuple[str, str | None]:
                    return sys.executable, os.environ.get("GREETING")

            ray.init()
            worker = Worker.remote()
            python, greeting = ray.get(worker.told.remote())
            print(f"worker runs in {python}, GREETING={greeting}")
            signal.pause()
        case _:
            raise AssertionError(job_id)


if __name__ == "__main__":
    main(sys.argv[1])
