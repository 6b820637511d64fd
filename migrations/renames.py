"""What revision 0007 makes of stored documents: the words of specs, events and hyperparameters as they are from then on.

Functions of plain documents: a migration must run when the rest of the code has moved on. A document that has these
words already stays as it is.
"""

from typing import Any

Document = dict[str, Any]

SETTINGS = ("warmup", "pretrain", "main_train", "metric", "selector", "guards", "audit")  # of stpt, once of the job


def renamed_spec(spec: Document) -> Document:
    """A job's stored spec in today's words: settings of STPT stand in its method, each run has a label, and envelope
    and decay are called lr_schedule."""
    spec = dict(spec)
    settings = {key: spec.pop(key) for key in SETTINGS if key in spec}
    if "envelope" in spec:
        spec["lr_schedule"] = spec.pop("envelope")
    if "lr_set" in spec:
        spec["lr_set"] = _lr_set(spec["lr_set"])
    spec["methods"] = [_method(method, settings) for method in spec.get("methods", [{"name": "stpt"}])]
    return spec


def renamed_config(config: Document) -> Document:
    """The hyperparameters that a search chose, in today's words."""
    return {"lr_schedule" if key == "envelope" else key: value for key, value in config.items()}


def renamed_event(data: Document) -> Document:
    """A stored event in today's words: what is told of a run has its label, which is what the run was called."""
    if "method" not in data:
        return data
    told = {"label": data["method"]} | data | {"method": _name(data["method"])}
    return told | {"config": renamed_config(told["config"])} if told.get("config") else told


def _name(method: str) -> str:
    return "fixed" if method == "schedule" else method


def _lr_set(lr_set: Document) -> Document:
    kind = {"preset": "named", "schedule": "phases"}.get(lr_set.get("kind", ""), lr_set.get("kind"))
    phases = [phase | {"lr_set": _lr_set(phase["lr_set"])} for phase in lr_set.get("phases", [])]
    return lr_set | {"kind": kind} | ({"phases": phases} if phases else {})


def _method(method: Document, settings: Document) -> Document:
    """A method in today's words, of a job whose spec had those settings of STPT."""
    method = {"label": method["name"]} | method | {"name": _name(method["name"])}
    match method["name"]:
        case "stpt":
            return method | settings
        case "fixed":
            return _moved(method, {"decay": "lr_schedule", "preset": "defaults"})
        case "replay":
            return method | {"schedule": _schedule(method.get("schedule"), settings)}
        case "study":
            variants = [one | {"method": _method(one["method"], settings)} for one in method["variants"]]
            return method | {"variants": variants}
    if space := method.get("search_space"):
        method["search_space"] = renamed_config(space)
    return _moved(method, {"schedule": "lr_schedule"})


def _schedule(schedule: Document | None, settings: Document) -> Document | None:
    """A schedule to replay in today's words: whether momentum was rescaled stood in the job's guards."""
    if schedule is None:
        return None
    rescale = settings.get("guards", {}).get("rescale_momentum", True)
    return {"rescale_momentum": rescale} | _moved(schedule, {"envelope": "lr_schedule"})


def _moved(document: Document, names: dict[str, str]) -> Document:
    return {names.get(key, key): value for key, value in document.items()}
