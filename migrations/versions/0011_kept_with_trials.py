"""What a trial's epochs come to is kept with the trial; indexes by which pages of jobs and epochs go

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0011", "0010", None, None

FILTERS = ("state", "model", "dataset", "name", "experiment")
OF_EVIDENCE = ["model", "dataset", "state", "number"]


def upgrade() -> None:
    op.add_column("trials", sa.Column("epochs_done", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("trials", sa.Column("samples", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("trials", sa.Column("best_epoch", sa.Integer()))
    op.add_column("trials", sa.Column("settled_learning_rate", sa.Double()))
    op.execute(
        """
        UPDATE trials SET
          epochs_done = (SELECT coalesce(max(epoch), 0) FROM epochs WHERE trial_id = trials.id),
          samples = (SELECT coalesce(sum(samples), 0) FROM epochs WHERE trial_id = trials.id),
          best_epoch = (
            SELECT epoch FROM epochs WHERE trial_id = trials.id ORDER BY val_accuracy DESC, epoch LIMIT 1
          )
        """
    )
    for name in FILTERS:
        op.create_index(f"ix_jobs_{name}_number", "jobs", [name, "number"])
    op.create_index("ix_jobs_model_dataset_state_number", "jobs", OF_EVIDENCE)
    for name in ("state", "model", "dataset", "experiment"):
        op.drop_index(f"ix_jobs_{name}", "jobs")
    op.create_index("ix_runs_job_id_id", "runs", ["job_id", "id"])


def downgrade() -> None:
    op.drop_index("ix_runs_job_id_id", "runs")
    op.drop_index("ix_jobs_model_dataset_state_number", "jobs")
    for name in ("state", "model", "dataset", "experiment"):
        op.create_index(f"ix_jobs_{name}", "jobs", [name])
    for name in FILTERS:
        op.drop_index(f"ix_jobs_{name}_number", "jobs")
    for name in ("settled_learning_rate", "best_epoch", "samples", "epochs_done"):
        op.drop_column("trials", name)
