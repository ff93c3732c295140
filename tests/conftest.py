"""What holds for the whole suite."""

import gc

import hypothesis  # noqa: F401 (pytest imports it at the end at the latest, and it looks for objects that are not frozen)


def pytest_collection_finish():
    """Take modules and tests out of the garbage collector's rounds, as they live to the end anyway.

    Every run of the trainer ends with a full collection, and several hundred of them would each walk a million objects.
    """
    gc.collect()
    gc.freeze()
