"""An explanation in the terminal: whether to trust it, what holds everywhere, what differs, what to do next."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from unipref.report._explained import (
    BASELINES,
    bare,
    domain_named,
    lift,
    name_of,
    order_told,
    plural,
    prefers,
    trust,
    who,
)
from unipref.report._words import NOTHING, Metric, bracket, listed

__all__ = ["render_explanation"]

MOST = 12  # concepts of a table; the page has all
FEW = 5  # of a line
GAP = 2
_SHARE = Metric("accuracy", "held-out accuracy", "share", 1)


def render_explanation(told: Mapping[str, Any]) -> RenderableType:
    """What `explanation.json` says, for a `rich` console: trust first, then concepts, differences and notes."""
    return _Printed(told)


@dataclass(frozen=True)
class _Printed:
    told: Mapping[str, Any]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        told = self.told
        names = sorted(told["mechanisms"], key=lambda name: name != told["main"])
        for name in names:
            if name != names[0]:
                yield Text()
            yield from self._of(name)
        for pair in told["between"]:
            yield Text()
            yield from self._differing(pair)
        yield from self._used()
        if told["notes"]:
            yield Text()
            yield Text("Notes", style="bold cyan")
            for note in told["notes"]:
                yield Text(f"- {note}")

    def _of(self, name: str) -> Iterator[RenderableType]:
        told = self.told["mechanisms"][name]
        n, domains, order = told["n"], told["domains"], order_told(told.get("order"))
        counts = [plural(n["pairs"], "pair"), plural(n["prompts"], "prompt"), plural(len(domains), "domain")]
        if n["ties"]:
            counts.append(plural(n["ties"], "tie"))
        yield Text.assemble((f"What {prefers(name)}", "bold"), f": {', '.join(counts)}, {n['heldout']:,} held out")
        if order["triple"][0] is not None:
            yield Text(f"verdicts that change with the order: {order['shown']} {order['aside']}")
        trusted = trust(told)
        yield Text(trusted["sentence"], style="bold green" if trusted["trusted"] else "bold yellow")
        yield _accuracies(told["accuracy"])
        yield Text(trusted["consequence"])
        if not told["shared"] and not any(domains.values()):
            yield Text("No concept has a weight.")
            return
        yield Text()
        place = "in all domains" if len(domains) > 1 else f"in {domain_named(next(iter(domains)))}"
        yield Text(f"What goes with being preferred {place}", style="bold cyan")
        yield self._concepts(told["shared"])
        if len(domains) > 1:
            yield from self._domains(domains)

    def _concepts(self, entries: Mapping[str, Mapping[str, Any]]) -> RenderableType:
        if not entries:
            return Text("no concept: what counts, counts in single domains")
        table = _plain_table("concept, more of it", "lift %", "95 % interval", "same sign in refits", "")
        for key, entry in list(entries.items())[:MOST]:
            low, high = entry["low"], entry["high"]
            interval = f"{bare(low)} to {bare(high)}" if low is not None and high is not None else NOTHING
            table.add_row(
                name_of(self.told, key),
                bare(entry["weight"]),
                interval,
                f"{100 * entry['stability']:.0f} %",
                "drives" if entry["drives"] else "",
                style=None if entry["drives"] else "dim",
            )
        if len(entries) > MOST:
            table.add_row(f"… and {len(entries) - MOST} more, on the page", "", "", "", "", style="dim")
        return table

    def _domains(self, domains: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[RenderableType]:
        yield Text()
        yield Text("Where a domain deviates (its lift; shared lift)", style="bold cyan")
        for domain, entries in domains.items():
            own = sorted(
                ((key, entry) for key, entry in entries.items() if entry["specific"]),
                key=lambda item: -abs(item[1]["specific"]),
            )
            parts = [
                f"{name_of(self.told, key)} {lift(entry['weight'])} ({bare(entry['weight'] - entry['specific'])})"
                for key, entry in own[:FEW]
            ]
            more = f"; {len(own) - FEW} more" if len(own) > FEW else ""
            yield Text(f"{domain}: {'; '.join(parts) or 'nowhere'}{more}")

    def _differing(self, pair: Mapping[str, Any]) -> Iterator[RenderableType]:
        a, b = pair["a"], pair["b"]
        yield Text(f"{a} beside {b}", style="bold cyan")
        n = len(pair["by_domain"])
        where = f"over {plural(n, 'domain')}" if pair["of"] == "domains" else "of shared weights; no domain is common"
        alike = f"{pair['similarity']:.2f} ({where})" if pair["similarity"] is not None else f"none: {pair['why_not']}"
        yield Text(f"correlation of weights: {alike}")
        if pair["agreement"] is not None:
            yield Text(f"same verdict: {bracket(_SHARE, pair['agreement'])} % of {plural(pair['same_pairs'], 'pair')}")
        for sign, one, other in ((1, a, b), (-1, b, a)) if pair["of"] == "domains" else ():
            most = sorted(
                (entry for entry in pair["overlooked"] if sign * entry["difference"] > 0),
                key=lambda entry: -abs(entry["difference"]),
            )[:FEW]
            parts = [
                f"{name_of(self.told, e['concept'])} ({lift(sign * e['difference'])}, in {100 * e['stability']:.0f} %)"
                for e in most
            ]
            if parts:
                yield Text(f"{who(one)} above {who(other)} (lift, share of refits): {listed(parts)}")

    def _used(self) -> Iterator[RenderableType]:
        guided = (self.told["applications"].get("guidance") or {}).get("mechanisms", {})
        measured = {name: one for name, one in guided.items() if "top" in one}
        broken = (self.told["applications"].get("tie_break") or {}).get("mechanisms", {})
        again = (self.told["applications"].get("tie_break_live") or {}).get("mechanisms", {})
        if not measured and not broken and not again:
            return
        yield Text()
        yield Text("What the concepts are good for, on held-out pairs", style="bold cyan")
        for name, one in measured.items():
            yield Text(
                f"{name}: the response ahead in its {one['k']} leading concepts is preferred in "
                f"{bracket(_SHARE, one['top'])} %, in {one['k']} others at random in {bracket(_SHARE, one['random'])} %"
            )
        live = self.told["applications"].get("guidance_live") or {}
        if "top" in live:
            yield Text(
                f"{live['model']} with {live['k']} leading concepts of {live['mechanism']} named beats its "
                f"plain answer in {bracket(_SHARE, live['top'])} % of {live['n']} prompts, with others in "
                f"{bracket(_SHARE, live['random'])} %"
            )
        for name, one in broken.items():
            if "why_not" in one:
                continue
            yield Text(f"{name}, {one['n']:,} near-ties decided as {self.told['main']} did: {self._by_concepts(one)}")
        for name, one in again.items():
            if "why_not" in one:
                yield Text(f"{one.get('model', 'the model')} was not asked about near-ties of {name}: {one['why_not']}")
                continue
            yield Text(
                f"{one['model']}, asked again about {one['n']:,} near-ties of {name}, decides as {self.told['main']} "
                f"did: {bracket(_SHARE, one['plain'])} % without a hint, {self._by_concepts(one)}"
            )

    def _by_concepts(self, one: Mapping[str, Any]) -> str:
        """How often ties are decided as the reference did, by each choice of concepts."""
        choices = {
            "random": f"{one['k']} at random",
            "own": "its own",
            "reference": f"those of {self.told['main']}",
            "overlooked": "those that it overlooks",
        }
        return ", ".join(f"{bracket(_SHARE, one[key])} % by {what}" for key, what in choices.items())


def _accuracies(accuracy: Mapping[str, Any]) -> RenderableType:
    table = _plain_table("", "held-out accuracy %", "this model is above it by, points")
    table.add_row("this model", bracket(_SHARE, accuracy["heldout"]), "")
    for name, triple in accuracy["baselines"].items():
        difference = bracket(_SHARE, accuracy["differences"][name], signed=True)
        table.add_row(BASELINES.get(name, name), bracket(_SHARE, triple), difference)
    for domain, triple in accuracy["leave_one_domain_out"].items():
        table.add_row(f"{domain}, learned elsewhere", bracket(_SHARE, triple), "", style="dim")
    return table


def _plain_table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="dim")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    return table
