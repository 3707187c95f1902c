"""Several recipes by several seeds, one protocol, one table: does a method help on these data?

`runs` trains and evaluates what is missing, `intervals` sets the ranks of two sides against each other,
`comparison` does both for all recipes, and `table` is what comes of it: plain data, its JSON and its table.
"""

from unicross.compare.comparison import compare
from unicross.compare.runs import Steps, real_steps
from unicross.compare.table import Comparison

__all__ = ["Comparison", "Steps", "compare", "real_steps"]
