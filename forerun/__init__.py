"""Forerun's public face: a client for the service, and the command line `forerun`.

from forerun import Client

with Client("http://127.0.0.1:8000") as client:
    job = client.submit({"model": "lenet5", "dataset": "digits", "epochs": 10, "lr_set": "middle"})
    print(job.wait().test_accuracy)
    print(job.lr_history().to_pandas())
"""

from forerun.client import ApiError, Client, JobFailed, ServiceUnreachable
from forerun.jobs import JobHandle

__all__ = ["ApiError", "Client", "JobFailed", "JobHandle", "ServiceUnreachable"]
