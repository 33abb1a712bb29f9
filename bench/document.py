"""docs/methods.md, written from what the methods' files declare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import catalogue
from bench.report.markdown import table
from methods.knobs import plain

PAGE = Path(__file__).parent.parent / "docs" / "methods.md"
INTRODUCTION = """# Methods

The {n} methods that come with the project, as their files in `methods/` declare them. This page is written by
`make docs`: change the method's file, not the page. To add a method, see [CONTRIBUTING.md](../CONTRIBUTING.md).

- **Needs**: what a method sees besides the labels and the student's own answer. `logits` of both networks; `feats`,
  the maps of stem and stages; `preacts`, the same maps before their last ReLU; `pooled`, the vector that enters the
  classifier; `tail`, the network behind a stage. Some take a second, strongly augmented view of every image, the
  sample's index in the training split, or full batches alone.
- **Extra parameters**: those besides the student's in training, for {pair} on CIFAR-100 by the default recipe,
  without memories of past batches; where inference takes more than the student, the section says how much. No teacher
  is trained for this page: a choice that a method makes by looking at one is replaced by what its section names.
- **Reported**: top-1 (%) on CIFAR-100, {pair}, as a recipe's source gives it, and how its authors chose the epoch.
  These are other people's numbers under their own protocols, and a best epoch on test does not compare with a last
  epoch. What we measured is in [results/reference](../results/reference).
- **Default**: the recipe `paper`; a suite names another by `recipe:`. **Range**: the values that are taken, `log`
  where a study draws on a logarithmic scale, `whole` for whole numbers. **Tuned**: whether a study tunes it.
"""
SELECTION = {
    "last-epoch": "last epoch",
    "best-epoch-on-test": "best epoch on test",
    "unknown": "selection unknown",
}
PHRASES = {"view strong": "strong view", "index": "sample index"}
RESULTS_PER_ROW = 3  # results side by side in a row


def methods_page() -> str:
    """The whole page: an introduction, a table of all methods, and a section for each."""
    rows = catalogue.methods(catalogue.built_in_methods())
    introduction = INTRODUCTION.format(n=len(rows), pair=" → ".join(catalogue.STANDARD_PAIR))
    head = ("method", "paper", "year", "needs", "extra parameters", "reported")
    summary = table(head, map(_summary, rows), right=("year", "extra parameters"))
    return "\n\n".join([introduction.strip(), summary, *map(_section, rows)]) + "\n"


def _summary(row: Mapping[str, Any]) -> list[str]:
    reported = [
        f"{recipe['standard']:.2f} {SELECTION[recipe['selection']]}"
        + (f" (`{recipe['name']}`)" if recipe["name"] != "paper" else "")
        for recipe in row["recipes"]
        if recipe["standard"] is not None
    ]
    extra = "refused" if row["extra_parameters"] is None else f"{row['extra_parameters']:,}"
    link = f"[{row['method']}](#{row['method']})"
    return [link, _paper(row), str(row["year"] or ""), _needs(row), extra, "; ".join(reported)]


def _section(row: Mapping[str, Any]) -> str:
    facts = [f"Paper: {_paper(row)}" + (f"; {row['authors']}; {row['venue']} {row['year']}" if row["year"] else "")]
    if row["code"]:
        facts.append(f"Code: {_code(row['code'], row['licence'].strip('-') or 'none recorded')}")
    facts += [f"Needs: {_needs(row)}", f"Extra parameters: {_parameters(row)}"]
    parts = [f"## {row['method']}", row["about"], _bullet_list(facts), _hyper_parameter_table(row)]
    parts += [part for recipe in row["recipes"] for part in _recipe_parts(recipe, row["defaults"])]
    if row["deviations"]:
        parts += ["Where paper, reference code and this project differ:", _bullet_list(row["deviations"])]
    return "\n\n".join(parts)


def _paper(row: Mapping[str, Any]) -> str:
    return f"[{row['title']}]({row['paper'].replace(' ', '%20')})" if row["paper"] else row["title"]


def _code(code: str, licence: str) -> str:
    place, _, rest = code.partition(" ")
    return f"[{place}](https://{place}) {rest}; licence: {licence}" if place.startswith("github.com/") else code


def _needs(row: Mapping[str, Any]) -> str:
    text = ", ".join(PHRASES.get(what, what) for what in row["sees"]) or "labels alone"
    if row["before"]:
        sees = ", ".join(PHRASES.get(what, what) for what in row["sees_before"])
        text += f"; before the first epoch, for {plain(row['before'])} of the schedule: {sees}"
    return text


def _parameters(row: Mapping[str, Any]) -> str:
    if row["extra_parameters"] is None:
        return str(row["note"])
    at_inference = f"{row['inference_parameters']:,}" if row["inference_parameters"] else "none"
    note = f" ({row['note']})" if row["note"] else ""
    return f"{row['extra_parameters']:,} in training, {at_inference} at inference{note}"


def _hyper_parameter_table(row: Mapping[str, Any]) -> str:
    if not row["space"]:
        return "It has no hyper-parameters."
    lines = [
        [f"`{key}`", plain(row["defaults"][key]), knob["range"], "yes" if knob["tuned"] else "no"]
        for key, knob in row["space"].items()
    ]
    return table(("hyper-parameter", "default", "range", "tuned"), lines)


def _recipe_parts(recipe: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """A recipe's paragraph, and the results that its source gives as a table."""
    changed = {key: value for key, value in recipe["values"].items() if value != defaults[key]}
    text = (
        f"Recipe `{recipe['name']}`" + (f" ({_values(changed)})" if changed else "") + f": {_escape(recipe['source'])}."
    )
    by_change: dict[str, list[str]] = {}
    for pair, changes in recipe["pairs"].items():
        by_change.setdefault(_values(changes), []).append(_show_pair(pair))
    if by_change:
        text += " For single pairs: " + "; ".join(f"{c} on {', '.join(p)}" for c, p in by_change.items()) + "."
    chosen = SELECTION[recipe["selection"]]
    if not recipe["reported"]:
        return [f"{text} No accuracy on record" + (f"; its source goes by the {chosen}." if "epoch" in chosen else ".")]
    datasets = {where.partition("/")[0] for where in recipe["reported"]}
    text += f" Reported top-1 (%) on {', '.join(sorted(datasets))}, {chosen}:"
    cells = [
        cell for where, top1 in recipe["reported"].items() for cell in (_show_pair(where, datasets), f"{top1:.2f}")
    ]
    width = 2 * min(RESULTS_PER_ROW, len(recipe["reported"]))
    cells += [""] * (-len(cells) % width)
    lines = [cells[i : i + width] for i in range(0, len(cells), width)]
    return [text, table(("pair", "top-1") * (width // 2), lines, right=("top-1",))]


def _show_pair(where: str, datasets: Sequence[str] | set[str] = ()) -> str:
    """'cifar100/a->b' as 'a → b'; the data set stays where a table has several."""
    return (where.partition("/")[2] if len(datasets) == 1 else where).replace("->", " → ")


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"`{key}: {plain(value)}`" for key, value in values.items())


def _bullet_list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_escape(line)}" for line in lines)


def _escape(text: str) -> str:
    return text.replace("*", "\\*")


if __name__ == "__main__":
    PAGE.write_text(methods_page(), encoding="utf-8")
