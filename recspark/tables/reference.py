"""docs/tables.md from the contracts: every stored table, its columns with types, and what they mean."""

from recspark.config.rankers import TrainingExamples
from recspark.features import FEATURES, meaning
from recspark.tables import (
    candidates,
    given_features,
    index,
    interaction_days,
    interactions,
    item_embeddings,
    item_facts,
    items,
    model_metrics,
    night_statistics,
    published_runs,
    recommendation_facts,
    recommendations,
    rejected_events,
    stage_runs,
    training_examples,
)
from recspark.warehouse.store import Table

# every stored table but the examples, whose columns depend on the tasks; what people read first
TABLES = (
    recommendations.TABLE,
    model_metrics.TABLE,
    published_runs.TABLE,
    stage_runs.TABLE,
    night_statistics.TABLE,
    interactions.TABLE,
    rejected_events.TABLE,
    interaction_days.TABLE,
    items.TABLE,
    item_facts.TABLE,
    given_features.ITEM_FEATURES,
    given_features.USER_FEATURES,
    item_embeddings.TABLE,
    recommendation_facts.TABLE,
    index.ITEM_INDEX,
    index.USER_INDEX,
    index.SCENARIO_INDEX,
    candidates.TABLE,
)
HEAD = """# Tables

Every table of a warehouse, under `<warehouse>/<table>`, or `<catalog>.<table>` with the key `catalog`. Written by
`recspark describe tables`; do not edit by hand. The same comments lie on the columns (`DESCRIBE recommendations`).
Columns are never moved; new ones come at the end. All times are UTC. `training_examples` is shown with the default
task.

| word | meaning |
|---|---|
| list | what one user gets in one scenario on one night |
| retriever | finds the items that may be listed; `source` names the one that ranked an item highest among its own |
| mode, model | what orders the lists of a scenario: one retriever, or a model over all of them; `model` names it |
| gate | the rule that decides which mode is published where, see evaluation.md |
| window | days after a past date, in which it is known what users did; a closed one lies before the night |
| slice | the part of the lists that a figure is about |
| NDCG@10 | how high what the user did afterwards stands in the first ten: 1 is perfect, .05 to .2 is usual |
| recall, coverage | share of what the user did that was found at all; share of the items that stand in some list |
| AUC, GAUC | chance that what the user interacted with has a higher score than other items, in all lists; in one |
| `*_id`, `*_idx` | the id of the source; our number for it, in the index tables |

```sql
-- the newest lists with titles
SELECT r.scenario, r.user_id, r.rank, i.text, r.reason FROM recommendations r JOIN items i USING (item_id)
WHERE r.run_date = (SELECT max(run_date) FROM recommendations) ORDER BY r.scenario, r.user_id, r.rank;
```
"""
EXAMPLE = " Example: "


FEATURES_PART = """## Features

Columns of `candidates` and `training_examples`, type float; NaN: not known.

| column | meaning |
|---|---|
"""


def tables() -> str:
    """The page as Markdown."""
    features = "\n".join(f"| `{name}` | {meaning(name)}. |" for name in FEATURES)
    examples = training_examples.table(TrainingExamples().tasks)
    return "\n".join((HEAD, *map(section, (*TABLES, examples)), f"{FEATURES_PART}{features}\n"))


def section(table: Table) -> str:
    """One table's part of the page. The features have a part of their own."""
    columns = fields(table.ddl)
    rows = [
        "| `{}` | {} | {} | {} |".format(name, kind, *described(table, name))
        for name, kind in columns
        if name not in FEATURES
    ]
    if len(rows) < len(columns):
        rows += ["", "And the columns of [Features](#features)."]
    key = f"Key: {', '.join(f'`{name}`' for name in table.key)}."
    parts = f" Partitioned by `{'`, `'.join(table.partition_by)}`." if table.partition_by else ""
    head = ["| column | type | meaning | example |", "|---|---|---|---|"]
    return "\n".join((f"## `{table.noun}`", "", f"{table.row} {key}{parts}", "", *head, *rows, ""))


def described(table: Table, column: str) -> tuple[str, str]:
    """(meaning, example) of a column, from its comment."""
    text, _, example = table.comment(column).partition(EXAMPLE)
    return text.replace("|", "\\|"), f"`{example}`" if example else ""


def fields(ddl: str) -> list[tuple[str, str]]:
    """(name, type) of the columns of a contract: a comma inside <> belongs to a type."""
    parts, depth = [""], 0
    for letter in ddl:
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [(name, kind) for name, _, kind in (part.strip().partition(" ") for part in parts)]
