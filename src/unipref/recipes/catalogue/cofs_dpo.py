"""Cross-domain online fast-slow chasing DPO."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from unipref.core.cards import get_method, method
from unipref.core.errors import ConfigError, DataError, nearest
from unipref.core.records import Record
from unipref.data import DataReport, Operator, Step, limit_records
from unipref.objectives.catalogue.dpo import dpo
from unipref.objectives.compose import base_objective
from unipref.recipes.composition import Composition, Loop


@method(
    "cofs_dpo",
    kind="loop",
    status="reconstructed",
    source="arXiv:2406.05534, from its abstract and a secondary summary",
    formula="theta = sum_k w_k theta_k, theta_k after domain k; w >= 0, sum w = 1, least DPO loss on replayed rows",
    needs=("chosen", "rejected", "domain", "ref_logp", "ref_logp.partner"),
    citation=get_method("ofs_dpo").citation,
)
def cofs_dpo(
    *,
    domains: Sequence[str],
    replay: int = 64,
    base: str = "ofs_dpo",
    base_options: Mapping[str, Any] | None = None,
    beta: float = 0.1,
    seed: int = 0,
) -> Loop:
    """One domain after another, then the mean of all their models that forgets the least.

    A round per domain, each from the model of the domain before. The last round trains nothing: it takes the models
    that the domains ended with and searches the weights of their mean, at least 0 and adding up to 1, for the least DPO
    loss on a few rows of every domain; what was tried is in its `metrics.jsonl`. One domain is its round alone. A
    round's reference is where it starts; name the first model in `references` to keep that one. The chase needs a
    partner: `references: [model, {model: PATH, name: partner}]`; it stands still here, while the paper trains a leader
    and a chaser side by side and gives these parts anew after every interval. `base: dpo` does without.

    Reconstructed: that the modules of several domains are combined linearly is the paper's; how their weights are
    found, and all numbers, are our reading. Whole models are merged here; for low-rank modules merged into one base
    that is the same.

    Args:
        domains: in their order; values of the rows' `domain`.
        replay: rows of every domain that the weights are fitted on.
        base: the loss of every domain, a method's name.
        base_options: options of the base.
        beta: of the DPO loss that the weights are fitted by.
        seed: of the draw of the replayed rows.
    """
    if isinstance(domains, str) or not domains or len(set(domains)) < len(domains):
        raise ConfigError(f"cofs_dpo needs a list of different domains, not {domains!r}")
    objective = base_objective(base, base_options, of="cofs_dpo")
    rounds = [Composition(objective, (of_domain(name),)) for name in domains]
    if len(domains) > 1:
        kept = replayed(domains=tuple(domains), rows=replay, seed=seed)
        rounds.append(Composition(dpo(beta=beta), (kept,), merges=True))
    return Loop(tuple(rounds))


def of_domain(name: str) -> Operator:
    """The records of one domain."""
    return Step("of_domain", {"name": name}, partial(_only, names=(name,)))


def replayed(*, domains: tuple[str, ...], rows: int, seed: int) -> Operator:
    """At most `rows` records of each domain, by a hash of their texts and `seed`."""

    def run(records: Sequence[Record]) -> tuple[list[Record], DataReport]:
        found, report = _only(records, names=domains)
        kept: list[Record] = []
        for name in domains:
            kept += limit_records([record for record in found if record.domain == name], rows, seed=seed)[0]
        report.leave_out("not replayed", len(found) - len(kept))
        report.n_kept = len(kept)
        return kept, report

    return Step("replayed", {"domains": domains, "rows": rows, "seed": seed}, run)


def _only(records: Sequence[Record], *, names: Sequence[str]) -> tuple[list[Record], DataReport]:
    present = {record.domain for record in records if record.domain is not None}
    for name in names:
        if records and name not in present:
            raise DataError(f"no record is of the domain {name!r}{nearest(name, present)}; name it in column `domain`")
    kept = [record for record in records if record.domain in names]
    report = DataReport(n_read=len(records), n_kept=len(kept))
    report.leave_out("of another domain", len(records) - len(kept))
    return kept, report
