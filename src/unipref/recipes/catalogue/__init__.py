"""Published recipes and loops, one file each: a card, and objectives on changed data. All files here are found."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
