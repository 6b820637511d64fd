"""API keys directly in the database of the service on this machine: `python -m api.local_keys ACTION DOCUMENT`, which
`forerun keys … --local` runs. This is how the first key is made.

ACTION is `create`, `list` or `revoke`; DOCUMENT is the body of the request that would do it over HTTP, or `{"id": …}`.
The answer is printed as JSON, as the API would give it. Which database: FORERUN_HOME or FORERUN_DATABASE_URL.
"""

import json
import os
import sys

from api.bodies import parsed
from api.routes.keys import KeyRequest, facts_of
from api.startup import make_home, open_database, read_settings
from service.access import keys
from service.errors import ForerunError, InvalidInput, in_lines
from service.store.api_keys import list_api_keys
from service.store.engine import Store
from service.wire import answers


def main(action: str, document: str) -> None:
    """Do what `action` says. Raises SystemExit with status 2 where the database cannot be used, and 1 where the request
    is refused."""
    os.umask(0o077)  # it may be the first that makes the database
    settings = read_settings()
    if settings.database_url is None:
        make_home(settings.home.absolute())
    with open_database(settings, serves=False) as store:
        try:
            print(_answer(store, action, document).model_dump_json())
        except ForerunError as error:
            told = in_lines(error.title, error.errors) if isinstance(error, InvalidInput) else error.detail
            print(f"forerun: {told}", file=sys.stderr)
            raise SystemExit(1) from None


def _answer(store: Store, action: str, document: str) -> answers.Answer:
    match action:
        case "create":
            key, text = keys.create_key(store, **dict(parsed(KeyRequest, document)))
            return answers.NewApiKey(**facts_of(key), key=text)
        case "revoke":
            return answers.ApiKey(**facts_of(keys.revoke_key(store, json.loads(document)["id"])))
        case _:
            with store.read() as session:
                found = list_api_keys(session)
            return answers.ApiKeyList(items=[answers.ApiKey(**facts_of(key)) for key in found])


if __name__ == "__main__":
    main(*sys.argv[1:])
