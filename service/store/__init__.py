"""The store keeps all records in SQL. What it promises to whoever calls it:

- What comes out is a frozen record (`store.records`), whole and made by name. No row of a table leaves, and nothing is
  read later on behind the caller's back. A record is what was true in its transaction, and stays so.
- What changes SQL is a named function, called with the session of a `Store.write()`, which is one transaction: all of
  it is committed when its block ends, or nothing where it raises. No function here commits.
- The session of a `Store.read()` changes nothing and locks nothing. On PostgreSQL each of its statements sees what is
  committed as it begins.
- `get_job(…, lock=True)` and `next_to_submit` lock the job's row until the transaction ends, before anything of the job
  is read: what they return is the newest there is, and nobody else changes the job meanwhile. On SQLite every writer
  waits for the one before (BEGIN IMMEDIATE).
- `set_job_state` compares before it sets, and writes the event that tells of it. What else happens to a job is told by
  `append_event` in the transaction that writes it.
- How many statements a function takes does not depend on how many rows it finds.
- Times come from the caller; those that come out are aware, and in UTC. What several services must agree on is told by
  the database's clock (`store.clock`): who leads, and when a job may have its next attempt.
"""
