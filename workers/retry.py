"""A retry takes over the files of the job that it goes on from: its checkpoints, and what its searches know."""

import os
import shutil
from pathlib import Path

from service.wire.checkpoint import STATE


def take_over(source: Path, folder: Path) -> None:
    """Copy the folder `source` to `folder`, whole or not at all; nothing happens where the one is absent, or the other
    is there. Tensors, which nobody writes to any more, are linked where the file system can, and take no room. Raises
    OSError where that fails."""
    if folder.exists() or not source.is_dir():
        return
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(source, unfinished, copy_function=_link_or_copy, symlinks=True)
        unfinished.rename(folder)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _link_or_copy(source: str, target: str) -> None:
    if Path(source).name == STATE:
        try:
            os.link(source, target)
            return
        except OSError:  # a file system without hard links
            pass
    shutil.copy2(source, target)
