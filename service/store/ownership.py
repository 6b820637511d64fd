"""Whose jobs a session is about: jobs that it makes are its owner's, and it may be that of others there are none.

The rule stands in one place, below every query: a query that is written tomorrow keeps it without a word of its own.
"""

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria

from service.store.tables import Job

OWNER = "owner"  # in the `info` of a session
OF_EVERYBODY = {"of_everybody": True}  # execution options of a statement about the cluster, which all owners share


class SessionOfOwner(Session):
    """A session in which the jobs of its owner are the only ones: every statement that reads, changes or deletes rows
    of jobs, in subqueries too, is about those alone. What hangs on a job is found by its job."""


def owner_of(session: Session) -> str | None:
    """Whose the jobs are that the session makes; None where they belong to nobody."""
    owner: str | None = session.info.get(OWNER)
    return owner


@event.listens_for(SessionOfOwner, "do_orm_execute")
def _only_its_own(execution: ORMExecuteState) -> None:
    if execution.execution_options.get("of_everybody", False):
        return
    if execution.is_select or execution.is_update or execution.is_delete:
        its_own = Job.owner == owner_of(execution.session)
        criteria = with_loader_criteria(Job, its_own, include_aliases=True)
        execution.statement = execution.statement.options(criteria)
