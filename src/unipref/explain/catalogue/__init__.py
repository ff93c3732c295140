"""What explains preferences, one file each: a card, and what it builds. All files here are found by themselves."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
