"""The list of published results, in the names of this benchmark, with how each number was chosen and by which protocol.

The list is results/published/published.csv; its README says where each number comes from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from bench.errors import UserError

FILE = Path("published", "published.csv")
KEPT = Path(__file__).parents[2] / "results" / FILE  # in the repository, for results that lie elsewhere

LAST, BEST, UNSAID = "last epoch", "best epoch on test", "not said"
RULES = (LAST, BEST, UNSAID)
"""How the authors of a number chose its epoch. Recipes of methods say the same with hyphens, and 'unknown'."""

MARKS = {BEST: "†", UNSAID: "‡"}
MARKED = "Published: no mark, last epoch; † best epoch on the test split; ‡ choice of epoch not said."
LITERATURE = "240 epochs, batch 64"
"""The CRD protocol on CIFAR-100, which most tables share."""

COLUMNS = ["dataset", "pair", "method", "recipe", "selection", "reported", "source", "protocol", "note"]
NETWORKS = {"ShuffleNetV1": "ShuffleV1", "ShuffleNetV2": "ShuffleV2"}
METHODS = {"student": "vanilla", "kd+dot": "dot", "simkd (f=2)": "simkd", "kd+ls": "lskd"}
METHODS |= {f"{name}+ls": f"lskd_{name}" for name in ("ctkd", "dkd", "mlkd")}

Recipes = Mapping[str, Mapping[str, Mapping[str, Any]]]


class Source(NamedTuple):
    """How a source counts: its name's beginning, of which of its methods, choice of epoch, protocol ('' not known)."""

    begins: str
    methods: str  # a regular expression
    selection: str
    protocol: str


SOURCES = (
    Source("RepDistiller", r".*", LAST, LITERATURE),
    Source("mdistiller", r"KD", LAST, LITERATURE),  # copied from RepDistiller
    Source("mdistiller", r".*", BEST, LITERATURE),
    Source("logit-standardization-KD", r"MLKD.*", BEST, "480 epochs or more"),
    Source("logit-standardization-KD", r".*\+LS.*", BEST, LITERATURE),
    Source("logit-standardization-KD", r".*", UNSAID, LITERATURE),  # copied from papers
    Source("Knowledge-Distillation-via-ND", r".*", UNSAID, ""),  # copied, or run again at another learning rate
    Source("SimKD", r".*", BEST, LITERATURE),
    Source("DIST_KD", r".*", UNSAID, LITERATURE),
    Source("CTKD", r".*", UNSAID, LITERATURE),
    Source("HSAKD", r".*", UNSAID, "teachers of its own"),
    Source("Knowledge-Distillation-Zoo", r".*", UNSAID, "200 epochs, batch 128"),
)


def read(results: Path | None = None, recipes: Recipes | None = None) -> pd.DataFrame:
    """One row per published number, in the list's order, then those that only the methods know: `COLUMNS`.

    The list is read from the results' folder, else from the repository; without one there are none of its rows.
    recipes: method -> name -> {selection, source, reported: {"cifar100/teacher->student": top-1 in %}}; they say which
    recipe gave a number, and how its epoch was chosen where the list does not. reported is in %. Raises `UserError` for
    a list that cannot be read.
    """
    places = [*([results / FILE] if results else []), KEPT]
    path = next((path for path in places if path.exists()), None)
    out = _list(path) if path else pd.DataFrame(columns=COLUMNS)
    return _with_recipes(out, recipes or {})


def plain(dataset: object) -> str:
    """'CIFAR-100' and 'CIFAR100' -> 'cifar100'."""
    return re.sub(r"[^a-z0-9]", "", str(dataset).casefold())


def _list(path: Path) -> pd.DataFrame:
    needed = ["dataset", "teacher", "student", "method", "top1", "source"]
    try:
        raw = pd.read_csv(path, dtype=str, keep_default_na=False)
        if missing := [name for name in needed if name not in raw]:
            raise ValueError(f"no column '{missing[0]}'")
        top1 = raw["top1"].astype(float)
    except (OSError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise UserError(f"{path}: not readable as published results ({first})") from None
    notes = raw["note"] if "note" in raw else pd.Series("", index=raw.index)
    counting = [_counting(*row) for row in zip(raw["method"], raw["source"], notes, strict=True)]
    bare = raw["method"].str.replace(r" \[log, .*\]$", "", regex=True).str.casefold()
    return pd.DataFrame(
        {
            "dataset": raw["dataset"].map(plain),
            "pair": raw["teacher"].replace(NETWORKS) + "->" + raw["student"].replace(NETWORKS),
            "method": bare.replace(METHODS),
            "recipe": None,
            "selection": [selection for selection, _ in counting],
            "reported": top1,
            "source": raw["source"],
            "protocol": [protocol for _, protocol in counting],
            "note": notes,
        }
    )


def _counting(method: str, source: str, note: str) -> tuple[str, str]:
    """Choice of epoch and protocol of a number."""
    found = next((s for s in SOURCES if source.startswith(s.begins) and re.fullmatch(s.methods, method)), None)
    selection, protocol = (found.selection, found.protocol) if found else (UNSAID, "")
    logged = re.search(r"\[log, (last epoch|best epoch on test)\]$", method)
    epochs = re.search(r"epochs=(\d+)", note)
    if epochs and epochs[1] != "240":
        protocol = f"{epochs[1]} epochs"
    return (logged[1] if logged else selection), protocol


def _with_recipes(listed: pd.DataFrame, recipes: Recipes) -> pd.DataFrame:
    """The list with the recipe that gave each number, where a method says so, and the numbers that it lacks."""
    of_recipes = [
        (plain(where.partition("/")[0]), where.partition("/")[2], method, name, _rule(recipe), float(top1), recipe)
        for method, named in recipes.items()
        for name, recipe in named.items()
        for where, top1 in recipe.get("reported", {}).items()
    ]
    of = {(dataset, pair, method, top1): name for dataset, pair, method, name, _, top1, _ in of_recipes}
    keys = list(listed[["dataset", "pair", "method", "reported"]].itertuples(index=False, name=None))
    lacking = [row for row in of_recipes if (row[0], row[1], row[2], row[5]) not in set(keys)]
    more = pd.DataFrame([(*row[:6], row[6].get("source", ""), "", "") for row in lacking], columns=COLUMNS)
    rules = {(dataset, pair, method, top1): rule for dataset, pair, method, _, rule, top1, _ in of_recipes}
    selection = [rules.get(key, s) if s == UNSAID else s for key, s in zip(keys, listed["selection"], strict=True)]
    listed = listed.assign(recipe=[of.get(key) for key in keys], selection=selection)
    return pd.concat([part for part in (listed, more) if len(part)] or [listed], ignore_index=True)


def _rule(recipe: Mapping[str, Any]) -> str:
    words = str(recipe.get("selection", "")).replace("-", " ")
    return words if words in RULES else UNSAID
