"""What keys and values of a spec were called before they got their present names, so that an error names the new
one."""

from service.spec.types import Frozen

_IN_STPT = "it is a setting of the method now: methods: [{{name: stpt, {key}: …}}]"
_LR_SCHEDULE = "it is called lr_schedule now"
# Keys that are gone, by the name of the model that had them.
_MOVED = {
    ("JobSpec", "envelope"): _LR_SCHEDULE,
    **{
        ("JobSpec", key): _IN_STPT.format(key=key)
        for key in ("warmup", "pretrain", "main_train", "metric", "selector", "guards", "audit")
    },
    ("SweepMethod", "schedule"): _LR_SCHEDULE,
    ("FixedMethod", "decay"): _LR_SCHEDULE,
    ("FixedMethod", "preset"): "it is called defaults now",
    ("Schedule", "envelope"): _LR_SCHEDULE,
}
# Values that are gone, by the key that they stand under.
RENAMED = {
    ("methods", "schedule"): "this method is called fixed now",
    ("method", "schedule"): "this method is called fixed now",
    ("lr_set", "preset"): "a set by its name is of the kind named now; give name alone",
    ("lr_set", "schedule"): "sets one after another are of the kind phases now; give phases alone",
}


def moved_key(owner: type[Frozen], key: str) -> str | None:
    """The message that says where a key that the model `owner` no longer has is found now; None when it never had
    it."""
    if key == "schedule" and "search_space" in owner.model_fields:
        return _LR_SCHEDULE
    return _MOVED.get((owner.__name__, key))
