"""Published changes of the data, one file each. All files here are found by themselves.

Every operator is here by its key: `unipref.data.catalogue.mine_pairs(eta=0.85)` is a callable from records to records
and their account.
"""

import importlib
import pkgutil

from unipref.core.cards import list_methods

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    if not _module.name.rpartition(".")[2].startswith("_"):
        importlib.import_module(_module.name)

_FUNCTIONS = {
    card.key: card.function for card in list_methods("operator") if card.function.__module__.startswith(__name__)
}
globals().update(_FUNCTIONS)
__all__ = sorted(_FUNCTIONS)
