"""Whose jobs a session is about: jobs that it makes are its owner's, and it may be that of others there are none.

The rule stands in one place, below every query: a query that is written tomorrow keeps it without a word of its own.
"""

from functools import lru_cache, partial
from typing import Any

from sqlalchemy import Alias, FromClause, Join, Select, event
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria
from sqlalchemy.sql import visitors

from service.store.tables import JOBS, Job

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
    owner = owner_of(execution.session)
    if not execution.is_orm_statement:
        execution.statement = _about(owner, execution.statement)
    elif execution.is_select or execution.is_update or execution.is_delete:
        criteria = with_loader_criteria(Job, Job.owner == owner, include_aliases=True)
        execution.statement = execution.statement.options(criteria)


@lru_cache(maxsize=300)
def _about(owner: str | None, statement: Any) -> Any:
    """The statement, which is about tables and not classes, with the owner's jobs alone in place of all. Statements are
    made once and run often, so the newest of theirs are kept."""
    changes = statement.is_update or statement.is_delete
    assert not (changes and statement.table is JOBS), "rows of jobs are changed and deleted by their class"
    return visitors.cloned_traverse(statement, {}, {"select": partial(_add_criterion, owner)})


def _add_criterion(owner: str | None, select: Select[Any]) -> None:
    sources = [one for source in select.get_final_froms() for one in _joined(source)]
    of_alias = [one for one in sources if isinstance(one, Alias) and one.element is JOBS]
    assert not of_alias, "jobs have no alias but that of their class"
    if JOBS in sources:
        Select.where.non_generative(select, JOBS.c.owner == owner)  # type: ignore[attr-defined]


def _joined(source: FromClause) -> list[FromClause]:
    """What a source of rows is joined of."""
    return [*_joined(source.left), *_joined(source.right)] if isinstance(source, Join) else [source]
