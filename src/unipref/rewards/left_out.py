"""What a model says of a domain that it has not seen: one fit per domain, without it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from unipref.core.errors import DataError
from unipref.rewards.models import PreferenceModel, make_model
from unipref.rewards.table import PreferenceTable

__all__ = ["leave_one_domain_out"]


def leave_one_domain_out(
    name: str,
    options: Mapping[str, Any],
    table: PreferenceTable,
    *,
    seen: np.ndarray | None = None,
    unlabelled: bool = True,
) -> dict[str, np.ndarray]:
    """Domain -> logits of its comparisons, in the table's order, by a model that was fitted to the other domains.

    No conversation is parted: comparisons of another domain whose conversation is also in the one that is left out are
    left out with it. Comparisons that name no domain are trained on, and not scored.

    Args:
        name, options: of the preference model.
        seen: (N,) comparisons that may be trained on; the others are scored alone. None: all.
        unlabelled: the responses of the domain that is left out, without labels, are given to a model that can learn
            from them: in the fit, or by adapting to the new domain.

    Raises:
        DataError: there are fewer than two domains.
    """
    if len(table.domains) < 2:
        raise DataError(
            f"leaving one domain out needs two or more, and the comparisons name {len(table.domains)} "
            f"({', '.join(table.domains) or 'none'}); give the column `domain`"
        )
    seen = np.ones(len(table), dtype=bool) if seen is None else np.asarray(seen)
    return {domain: _without(name, options, table, domain, seen, unlabelled) for domain in table.domains}


def _without(
    name: str, options: Mapping[str, Any], table: PreferenceTable, domain: str, seen: np.ndarray, unlabelled: bool
) -> np.ndarray:
    out = table.domain == domain
    inside = seen & ~out & ~np.isin(table.group, np.unique(table.group[out]))
    blank = table.with_columns(
        p=np.where(out, 0.5, table.p),
        weight=np.where(out, 0.0, table.weight),
        margin=np.where(out, np.nan, table.margin),
    )
    model: PreferenceModel = make_model(name, **options)
    model.fit(blank.take(inside | out) if unlabelled and model.fitting.unlabelled else table.take(inside))
    if unlabelled and model.adaptation is not None and not model.adaptation.reads_labels and "domain" in model.needs:
        model = model.adapt(blank.take(out))
    return model.decision_function(blank.take(out))
