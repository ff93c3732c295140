"""torchrun for two ranks that import once: MODULE is imported here, and each rank, a fork, calls its `main(WORDS)`.

    python two_ranks.py MODULE WORD ...

Importing the training stack takes a process most of ten seconds, and a tiny run takes one. That torchrun itself and
`accelerate launch` start ranks of their own is for recipes/test_sharded_align.py to show.
"""

import gc
import importlib
import sys

from torch.distributed.launcher import LaunchConfig, elastic_launch

LATE = {"unipref.cli": "unipref.recipes.align"}  # what a module's `main` imports, which would be in each rank


def rank(main, words):
    if code := main(words):
        sys.exit(code)


if __name__ == "__main__":
    module, *words = sys.argv[1:]
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
        start_method="fork",
    )
    importlib.import_module(LATE.get(module, module))
    main = importlib.import_module(module).main
    gc.freeze()  # a round of the garbage collector would copy the pages of what was imported, and takes long
    elastic_launch(launch, rank)(main, words)
