"""The papers' tables as lists for people: what each needs to be run, and the document that shows them."""

from collections.abc import Iterator

from pipeline_lib.configuration.presence import missing_data
from pipeline_lib.configuration.tables import FIGURES, PaperTable, TableRow
from pipeline_lib.errors import UserError
from pipeline_lib.planning.plan import Plan
from pipeline_lib.planning.run import with_sources

BEGIN, END = "<!-- tables: written by `python -m pipeline_lib tables --write` -->", "<!-- end of tables -->"
"""The part of docs/experiments.md between these lines is generated."""


def not_yet(table: PaperTable) -> list[str]:
    """What is missing here for rows of a table, each once."""
    return list(dict.fromkeys(row.not_yet for row in table.rows if row.not_yet))


def missing(plan: Plan, name: str) -> list[str]:
    """What a user has to give, or to fetch, before a table can be run."""
    table = plan.configuration.tables[name]
    runs = with_sources(plan.runs(*table.experiments))
    found = [
        f"data set {dataset}: {missing_data(dataset, plan.configuration.datasets[dataset])[0]}"
        for dataset in dict.fromkeys(run.dataset for run in runs)
        if missing_data(dataset, plan.configuration.datasets[dataset])
    ]
    starts = dict.fromkeys(path for run in runs if not run.members for path in run.source_weights)
    found += [
        f"weights {plan.layout.key(path)}, which are fetched"
        for path in starts
        if not path.is_file() and plan.layout.root / "imported" in path.parents
    ]
    return found


def lacking(plan: Plan, name: str) -> str:
    """Names of the data sets that are not configured and of the weights that are not there, behind a table."""
    words = [problem.partition(":")[0].partition(",")[0].split()[-1] for problem in missing(plan, name)]
    return ", ".join(word.rpartition("/")[2].removesuffix(".safetensors") for word in words)


def counted(table: PaperTable) -> str:
    """How many of its rows stand here: ``6 of 9 rows``."""
    ours = sum(bool(row.ours) for row in table.rows)
    quoted = sum(row.quoted is not None for row in table.rows)
    return f"{ours} of {len(table.rows) - quoted} rows" + (f", {quoted} quoted" if quoted else "")


def _standing(row: TableRow) -> str:
    names = ", ".join(f"`{name}`" for name in row.ours)
    return (names or row.standing()) + (f" ({row.differs})" if row.differs else "")


def _markdown(name: str, table: PaperTable) -> Iterator[str]:
    yield f"### `{name}`: {table.source}"
    yield ""
    yield f"{table.description}."
    yield ""
    heads = [column.label for column in table.columns.values()]
    yield "| " + " | ".join(["", *heads, "ours"]) + " |"
    yield "| " + " | ".join(["---"] * (len(heads) + 2)) + " |"
    for row in table.rows:
        numbers = [f"{row.printed[column]:g}" if column in row.printed else "" for column in table.columns]
        yield "| " + " | ".join([row.label, *numbers, _standing(row)]) + " |"
    for note in table.notes:
        yield ""
        yield note
    yield ""


def document(plan: Plan) -> str:
    """The generated part of docs/experiments.md, with the lines around it."""
    lines = [BEGIN, ""]
    paper = ""
    for name, table in plan.configuration.tables.items():
        if table.paper != paper:
            paper = table.paper
            lines += [f"## {paper}", ""]
        lines += _markdown(name, table)
    return "\n".join([*lines, END])


def with_tables(text: str, plan: Plan) -> str:
    """A document whose generated part is up to date.

    Raises:
        UserError: it lacks the lines around that part.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UserError(
            f"docs/experiments.md needs the lines {BEGIN!r} and {END!r} once each, the tables between them."
        )
    before, rest = text.split(BEGIN)
    return before + document(plan) + rest.split(END)[1]


def figure_names(table: PaperTable) -> str:
    """What its columns print, each once: ``top-1 over videos, parameters``."""
    return ", ".join(dict.fromkeys(FIGURES[column.figure][1] for column in table.columns.values()))
